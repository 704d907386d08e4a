"""A machine's figures from timed kernels and passes."""
