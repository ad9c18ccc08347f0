"""The matrices of gates that are made of what they store, live and differentiable, for the kernel."""
