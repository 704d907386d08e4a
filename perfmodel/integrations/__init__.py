"""Shims that put a plan into a serving engine's own loop: one file each, which alone imports its engine."""
