"""What several test files need: makers of runs and of files, a command with its output, a browser."""
