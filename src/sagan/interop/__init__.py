"""Other codebases' checkpoints, ONNX, safetensors, the Hub."""
