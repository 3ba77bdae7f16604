"""The Hugging Face Hub: push and pull a generator with its model card."""
