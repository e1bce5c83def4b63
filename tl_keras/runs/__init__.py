"""Runs: from a configuration to a finished run directory, and what is done with one."""
