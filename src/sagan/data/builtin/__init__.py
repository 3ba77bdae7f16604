"""Image sets that sagan draws itself."""
