"""Other codebases' checkpoints."""
