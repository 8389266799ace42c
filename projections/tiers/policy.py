"""How long what is kept where: the policies of the tiers."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias, get_args

from domain.members import Kind

# Kinds of conversations of which rows leave a month, each with the first moment of which all rows stay warm.
Leaving: TypeAlias = Mapping[str, datetime]

KINDS: Final[tuple[str, ...]] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class WarmPolicy:
    """How many months stay warm, of each kind of conversations: that of today is the first, 0 is all there are."""

    months: Mapping[str, int]

    @classmethod
    def parse(cls, text: str) -> "WarmPolicy":
        """Of a setting: `3`, or `3,direct=12`: first of all kinds, then of those that are named.

        Raises:
            ValueError: it is neither.
        """
        first, *others = (part.strip() for part in text.split(","))
        months = dict.fromkeys(KINDS, _months(first))
        for other in others:
            kind, _, number = other.partition("=")
            if kind not in months:
                raise ValueError(f"{kind!r} is no kind of conversations")
            months[kind] = _months(number)
        return cls(months)

    def horizons(self, now: datetime) -> Leaving:
        """Of each kind that leaves at all, the first moment that stays warm."""
        return {kind: _month_before(now, months - 1) for kind, months in self.months.items() if months}

    def leaving(self, end: datetime, now: datetime) -> Leaving:
        """The kinds that are to leave a month that ends at a moment, each with its horizon."""
        return {kind: horizon for kind, horizon in self.horizons(now).items() if end <= horizon}


def _months(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{text!r} is no number of months")
    return int(text)


def _month_before(moment: datetime, months: int) -> datetime:
    """The first moment of the month that is so many before that of another moment."""
    number = moment.year * 12 + moment.month - 1 - months
    return datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)
