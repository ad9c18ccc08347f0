"""A page that shows circuit files as they are edited."""
