"""Features of pictures, and distances between sets of them."""
