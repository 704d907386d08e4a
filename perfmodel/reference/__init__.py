"""A small decoder that runs what the planner prices; it needs PyTorch (the extra `reference`)."""
