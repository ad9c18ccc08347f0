"""Pages to look at: one self-contained HTML file each, which asks for no network and runs no text of a circuit.

Only files are read here, and text is put together; the browser draws.
"""

from quanta_compiler.pages.comparison_page import comparison_page
from quanta_compiler.pages.fragments import circuit_fragment, comparison_fragment
from quanta_compiler.pages.report_page import report_page

__all__ = ["circuit_fragment", "comparison_fragment", "comparison_page", "report_page"]
