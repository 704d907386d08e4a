"""What steps, rounds and closed loops take on servers as people run them, and engines fitted to that."""
