"""Names that people give: of conversations and of themselves."""

import unicodedata

from domain.errors import Invalid

_UNNAMABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})  # control characters, lone surrogates, line and paragraph ends


def checked_name(name: str | None, *, max_chars: int, field: str = "name") -> str | None:
    """The name itself, when it is one; `None` is no name.

    Raises:
        Invalid: empty, blank or over `max_chars`, more than one line, or with a control character.
    """
    if name is None:
        return None
    # Not `isprintable`: that refuses the joiners of emoji and of Persian.
    if (
        not 1 <= len(name) <= max_chars
        or name.isspace()
        or any(unicodedata.category(char) in _UNNAMABLE for char in name)
    ):
        raise Invalid(f"a name has 1 to {max_chars} characters on one line, and no control characters", field=field)
    return name
