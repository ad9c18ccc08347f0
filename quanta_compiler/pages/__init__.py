"""Pages to look at: one self-contained HTML file each, which asks for no network and runs no text of a circuit.

Only files are read here, and text is put together; the browser draws.
"""
