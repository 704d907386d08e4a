"""Requests through continuous batching, and how many replicas they need."""
