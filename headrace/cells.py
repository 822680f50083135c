"""Text in the cells of a CSV file, which no spreadsheet may take for a formula."""

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r]")  # OWASP, "CSV Injection"


def safe(cell: str) -> str:
    """With a quote before it, where a spreadsheet would take it for a formula."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def plain(cell: str) -> str:
    """What `safe` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
