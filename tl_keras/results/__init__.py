"""What a run leaves behind: its directory, predictions and metrics. NumPy only."""
