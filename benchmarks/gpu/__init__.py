"""What is measured on a GPU machine: `make gpu` (docs/gpu.md)."""
