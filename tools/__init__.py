"""The scripts that made what the package carries."""
