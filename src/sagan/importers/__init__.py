"""Import checkpoints of other codebases: one file per codebase."""
