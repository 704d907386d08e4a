"""What people ask: flags and files become a question."""
