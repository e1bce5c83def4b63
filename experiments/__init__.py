"""Experiments that repeat the five source reports, one short module each."""
