"""Price every configuration, keep the best, and say why."""
