"""Results of a run: its directory, predictions and metrics. NumPy and SciPy only."""
