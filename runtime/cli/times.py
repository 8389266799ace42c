"""Times as they are typed: `2h` (ago), `now`, or ISO 8601, where a time without a zone is UTC."""

from datetime import UTC, datetime, timedelta
from typing import Final

from runtime.cli import fail
from runtime.cli.token import DURATION, UNIT_S

EXPECTED: Final = "one like 2h (ago), now, 2026-11-25 or 2026-11-25T09:30:00Z is expected"


def time_of(text: str, option: str) -> datetime:
    """The time that was typed, UTC.

    Ends the command with one plain line when it is none.
    """
    ago = DURATION.fullmatch(text)
    try:
        if text == "now":
            return datetime.now(UTC)
        if ago is not None and ago[2]:
            return datetime.now(UTC) - timedelta(seconds=int(ago[1]) * UNIT_S[ago[2]])
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        fail(f"{option} {text!r} is not a time: {EXPECTED}")
