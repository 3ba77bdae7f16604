"""The commands, one file each: the options, and a function that calls the package and prints what it returns."""
