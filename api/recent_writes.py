"""What was just written through this process: so that the next read waits for it."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

# What one tier has another has a moment later: a page from Postgres must not be followed by an older one from Valkey.
SETTLES_S: Final = 10.0
REMEMBERED_MAX: Final = 50_000  # about 200 bytes each; one that is forgotten early costs a stale read, no more

_NONE: Final = (0, 0.0)


class RecentWrites:
    """The newest version of a conversation that a user is known to have caused, or to have been brought in by.

    By user and conversation, not by conversation alone: a stranger's read must not take longer because the
    conversation exists. Bounded; the oldest is forgotten first.
    """

    def __init__(self, remembered_max: int = REMEMBERED_MAX, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._written = self._settled = 0
        self._versions: OrderedDict[tuple[int, str], tuple[int, float]] = OrderedDict()
        self._remembered_max = remembered_max
        self._clock_s = clock_s

    def note(self, conversation_id: int, version: int, users: Iterable[str]) -> None:
        """Remember a version for users. An older one never replaces a newer."""
        for user_id in users:
            key = (conversation_id, user_id)
            self._versions[key] = max((version, self._clock_s()), self._versions.get(key, _NONE))
            self._versions.move_to_end(key)
        while len(self._versions) > self._remembered_max:
            self._versions.popitem(last=False)

    def version_of(self, conversation_id: int, user_id: str) -> int:
        """The version to wait for; 0 when there is none."""
        return self._versions.get((conversation_id, user_id), _NONE)[0]

    def was_read(self, conversation_id: int, user_id: str, version: int) -> None:
        """A read had this version. It is forgotten if it was written long enough ago for every tier to have it."""
        _, written_s = self._versions.get((conversation_id, user_id), _NONE)
        if self._clock_s() - written_s >= SETTLES_S:
            self.forget(conversation_id, user_id, version)

    def forget(self, conversation_id: int, user_id: str, version: int) -> None:
        """The wait for this version is over. A newer one stays."""
        key = (conversation_id, user_id)
        if self._versions.get(key, _NONE)[0] == version:
            del self._versions[key]

    # -- whatever it was ------------------------------------------------------------------------------------

    def wrote(self) -> None:
        """Something was written, which reads across conversations (an inbox) are to see."""
        self._written += 1

    @property
    def unsettled(self) -> int | None:
        """A mark of what was written and may not be readable yet; `None` when all of it is."""
        return self._written if self._written > self._settled else None

    def settle(self, mark: int) -> None:
        """What was written up to a mark can be read."""
        self._settled = max(mark, self._settled)
