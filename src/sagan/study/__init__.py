"""The paper's experiments: train variants of one configuration, measure them in the same way, and report."""
