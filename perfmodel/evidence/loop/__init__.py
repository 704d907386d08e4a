"""From a benchmark of a server back to the model: points, acceptance, traffic, and what a plan missed."""
