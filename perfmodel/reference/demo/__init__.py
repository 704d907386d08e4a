"""Measured beside predicted, on this machine."""
