"""Which circuit for which layer of which model."""
