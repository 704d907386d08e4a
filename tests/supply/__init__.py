"""What is released and what comes with it: builds, licences, known weaknesses, every Python."""
