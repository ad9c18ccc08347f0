"""What everybody prints with."""
