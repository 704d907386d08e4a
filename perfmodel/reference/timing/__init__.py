"""Kernels, passes and rounds of this machine, timed."""
