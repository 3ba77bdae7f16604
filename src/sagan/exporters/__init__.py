"""Export a generator: ONNX, torch.export, safetensors."""
