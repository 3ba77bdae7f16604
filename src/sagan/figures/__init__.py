"""Draw figures: arrays in, images out."""
