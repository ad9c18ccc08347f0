"""Saved adapters: checkpoints of the QuanTA paper's code turned into ours, and trained updates looked at.

torch starts here: the command line imports this package only inside `quanta import` and `quanta analyze`.
"""
