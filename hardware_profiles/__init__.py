"""Accelerators, one YAML file each; the name of the file is what the user types."""
