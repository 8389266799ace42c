"""Values for the parameters of a statement (`{name:Type}`), as ClickHouse reads them."""

from typing import Final

_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0"})


def escaped(text: str) -> str:
    """Text that is read back as it is, whatever the type of the parameter: it is written as in a line of TSV."""
    return text.translate(_ESCAPES)
