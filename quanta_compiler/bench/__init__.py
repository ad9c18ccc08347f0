"""`quanta bench`: a compiled circuit beside other ways to compute it, and beside the layers that it competes with."""
