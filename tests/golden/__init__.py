"""Answers that are held, and everything a user can call."""
