"""Write figures and pages from a run: samples, attention, interpolations, curves, report, contact sheet."""
