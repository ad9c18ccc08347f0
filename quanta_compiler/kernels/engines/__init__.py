"""A folder for each engine of the `fused` backend; `kernels/engine.py` lists them."""
