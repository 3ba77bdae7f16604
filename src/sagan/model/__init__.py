"""The layer and the networks: tensors in, tensors out."""
