"""What sagan writes from a run: samples, attention, interpolation, curves, report."""
