"""What judges the compiler."""
