"""The commands, a file for each: its options, and what reads them, calls one function and prints."""
