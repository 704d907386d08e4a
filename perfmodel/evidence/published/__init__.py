"""Published measurements beside what the model computes for them."""
