"""The experiments of the five reports, one short file each."""
