"""A user's own settings of a conversation: nobody else sees them."""

from dataclasses import dataclass
from datetime import UTC, datetime

from msgspec import UNSET, UnsetType

from domain.errors import Invalid


@dataclass(frozen=True, slots=True)
class OwnSettings:
    """`muted_until`: UTC, whole milliseconds; may be past by now, which is not muted."""

    muted_until: datetime | None = None
    pinned: bool = False
    hidden: bool = False

    def changed(
        self,
        *,
        muted_until: datetime | UnsetType | None = UNSET,
        pinned: bool | UnsetType = UNSET,
        hidden: bool | UnsetType = UNSET,
    ) -> "OwnSettings":
        """These settings with what is given laid over them; `None` ends a mute.

        Raises:
            Invalid: a time without its zone, or out of any calendar.
        """
        return OwnSettings(
            self.muted_until if muted_until is UNSET else _checked_time(muted_until),
            self.pinned if pinned is UNSET else pinned,
            self.hidden if hidden is UNSET else hidden,
        )


def _checked_time(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    try:
        if moment.tzinfo is None:
            raise Invalid("a time has its zone", field="muted_until")
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise Invalid("a time of the years 1 to 9999, UTC", field="muted_until") from None
    return moment.replace(microsecond=moment.microsecond // 1_000 * 1_000)
