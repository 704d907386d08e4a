"""Servers as people start them, read for the question that they imply: --from."""
