"""What people are told: answers become tables, JSON, YAML and CSV."""
