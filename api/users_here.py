"""The users with sessions on this gateway, as it tells them to Valkey: noted at once, written in batches.

One call an interval renews the lease that all entries rest on, and takes along who has changed. When the lease was
lost (a flush, a restart, an outage), another begins and everybody is written anew, with what they chose and when those
who left were last seen: the gateways' memory is what presence comes back from.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from math import ceil
from typing import Final, Protocol

import structlog

from api.presence_store import CHUNK, Known, PresenceDown, PresenceStore
from api.presence_times import PresenceTimes
from api.presence_view import Choice, Entry
from api.push_metrics import PRESENCE_PENDING
from streams import subjects
from streams.ports import Bus

GONE_MAX: Final = 10_000  # users who left, remembered for a flush of Valkey; about 3 MB
RETRY_S: Final = 1.0

log = structlog.get_logger(__name__)


class PresenceSession(Protocol):
    """What presence asks of a session. Hashable by identity."""

    @property
    def user_id(self) -> str:
        """Whose it is."""
        ...

    @property
    def device_kind(self) -> str:
        """Of the device it runs on."""
        ...

    def push_signal(self, payload: bytes) -> None:
        """Push the JSON of a signal. Never waits."""
        ...


@dataclass(slots=True, eq=False)
class _Here:
    """A user with sessions here. `choice` and `last_seen_ms`: as Valkey had them at the last write."""

    active_s: float
    sessions: dict[PresenceSession, None] = field(default_factory=dict)
    idle: bool = False
    choice: Choice | None = None
    last_seen_ms: int | None = None


class UsersHere:
    """Not for threads. `run` writes until cancelled; without it, changes are only noted.

    Args:
        clock: seconds that only rise.
        wall_ms: Unix milliseconds.
    """

    def __init__(
        self,
        store: PresenceStore,
        bus: Bus,
        gateway_id: str,
        times: PresenceTimes,
        *,
        clock: Callable[[], float],
        wall_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._bus = bus
        self._gateway_id = gateway_id
        self._times = times
        self._clock = clock
        self._wall_ms = wall_ms
        self._here: dict[str, _Here] = {}
        self._gone: OrderedDict[str, Known] = OrderedDict()
        self._changed: dict[str, bool] = {}  # to be written, and whether to be told of
        self._to_rewrite: list[str] = []
        self._stirred = asyncio.Event()
        self._generation = 0
        self._lease = ""
        self._lease_stands = False

    @property
    def lease(self) -> str | None:
        """The lease that stands, as far as is known."""
        return self._lease if self._lease_stands else None

    # -- noting ---------------------------------------------------------------------------------------------

    def connected(self, session: PresenceSession) -> None:
        """A session has begun. Idempotent."""
        here = self._here.get(session.user_id)
        if here is None:
            here = self._here[session.user_id] = _Here(self._clock())
            gone = self._gone.pop(session.user_id, None)
            if gone is not None:
                here.choice, here.last_seen_ms = gone.choice, gone.last_seen_ms
        here.sessions[session] = None
        self.active(session)
        self._change(session.user_id)

    def disconnected(self, session: PresenceSession) -> None:
        """A session has ended. Idempotent."""
        here = self._here.get(session.user_id)
        if here is None or session not in here.sessions:
            return
        del here.sessions[session]
        if not here.sessions:
            del self._here[session.user_id]
            seen_ms = here.last_seen_ms if _is_invisible(here.choice) else self._wall_ms()
            self._gone[session.user_id] = Known(here.choice, seen_ms)
            while len(self._gone) > GONE_MAX:
                self._gone.popitem(last=False)
        self._change(session.user_id)

    def active(self, session: PresenceSession) -> None:
        """Something was done in a session. Costs two look-ups: it is called for every request."""
        here = self._here.get(session.user_id)
        if here is None:
            return
        here.active_s = self._clock()
        if here.idle:
            here.idle = False
            self._change(session.user_id)

    def chosen(self, user_id: str, choice: Choice) -> None:
        """A user has chosen a status, here or at another gateway; what that changed is learnt at the next write."""
        here = self._here.get(user_id)
        if here is None:
            return
        if choice.status == "invisible" and not _is_invisible(here.choice):
            here.last_seen_ms = choice.at_ms
        here.choice = choice
        self._change(user_id)

    def lost(self, lease: str) -> None:
        """A lease that stood is not among the living: write anew at once, unless that has been done."""
        if lease == self._lease:
            self._lease_stands = False
            self._stirred.set()

    def _change(self, user_id: str) -> None:
        self._changed[user_id] = True
        self._stirred.set()

    # -- writing --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Renew, and write what changes, until cancelled; then say that all have left."""
        PRESENCE_PENDING.set_function(lambda: len(self._changed))
        try:
            await self._keep_writing()
        finally:
            await self._leave()

    async def _keep_writing(self) -> None:
        due_s = 0.0
        while True:
            await self._stir(due_s - time.monotonic())
            self._stirred.clear()
            if time.monotonic() >= due_s:
                self._look_for_idle()
                self._take_to_rewrite()
                due_s = time.monotonic() + self._times.refresh_s
            try:
                await self._write()
            except PresenceDown:
                # What had changed is not kept: when Valkey is back, everybody is written anew.
                self._changed.clear()
                self._lease_stands = False
                await asyncio.sleep(RETRY_S)
                due_s = 0.0

    async def _stir(self, at_most_s: float) -> None:
        """Wait for a change and those that come with it, or for the time to renew."""
        if at_most_s <= 0:
            return
        try:
            async with asyncio.timeout(at_most_s):
                await self._stirred.wait()
        except TimeoutError:
            return
        await asyncio.sleep(self._times.gather_s)

    def _look_for_idle(self) -> None:
        since_s = self._clock() - self._times.away_s
        for user_id, here in self._here.items():
            if here.active_s <= since_s and not here.idle:
                here.idle = True
                self._changed[user_id] = True

    def _take_to_rewrite(self) -> None:
        self._to_rewrite = self._to_rewrite or list(self._here)
        count = ceil(len(self._here) * self._times.refresh_s / self._times.rewrite_s)
        for user_id in self._to_rewrite[:count]:
            if user_id in self._here:
                self._changed.setdefault(user_id, False)
        del self._to_rewrite[:count]

    async def _write(self) -> None:
        if not self._lease_stands:
            await self._write_anew()
        changed, self._changed = self._changed, {}
        for users in list(_chunks(changed)) or [[]]:
            known = await self._store.write(self._lease, {user: self._entry(user) for user in users}, self._wall_ms())
            if known is None:
                await self._write_anew()  # of all, also those of this batch
                return
            self._learn(known)
            await self._notify(user for user in users if changed[user])

    async def _write_anew(self) -> None:
        """Begin another lease first, so that nobody is between two; what rests on the old one ends with that."""
        old = self._lease
        if old:
            log.info("presence is written anew", users=len(self._here))
        self._generation += 1
        self._lease = f"{self._gateway_id}:{self._generation}"
        await self._store.write(self._lease, {}, self._wall_ms(), begin=True)
        here = {user: Known(here.choice, here.last_seen_ms) for user, here in self._here.items()}
        remembered = {user: known for user, known in {**self._gone, **here}.items() if known != _NOTHING}
        for users in _chunks(remembered):
            await self._store.restore({user: remembered[user] for user in users})
        for users in _chunks(self._here):
            entries = {user: entry for user in users if (entry := self._entry(user)) is not None}
            written = await self._store.write(self._lease, entries, self._wall_ms())
            if written is None:
                raise PresenceDown("the lease was lost while it was begun")
            self._learn(written)
            await self._notify(written)
        await self._store.end(old)
        self._lease_stands = True

    def _entry(self, user_id: str) -> Entry | None:
        here = self._here.get(user_id)
        if here is None:
            return None
        return Entry(self._lease, tuple(sorted({session.device_kind for session in here.sessions})), here.idle)

    def _learn(self, written: Mapping[str, Known]) -> None:
        for user_id, known in written.items():
            here = self._here.get(user_id)
            if here is not None:
                here.choice, here.last_seen_ms = known.choice, known.last_seen_ms
            elif user_id in self._gone:
                self._gone[user_id] = known

    async def _notify(self, users: Iterable[str]) -> None:
        """Say whose presence is to be read again."""
        for user_id in users:
            await self._bus.publish(subjects.live_presence(user_id), b"")

    async def _leave(self) -> None:
        everybody = self._changed.keys() | self._here.keys()
        self._here.clear()
        if not self._lease_stands:
            return  # nothing of ours is believed
        try:
            for users in _chunks(everybody):
                await self._store.write(self._lease, dict.fromkeys(users), self._wall_ms())
                await self._notify(users)
            await self._store.end(self._lease)
        except PresenceDown:
            log.info("the users of this gateway are offline when its lease ends")


_NOTHING: Final = Known(None, None)


def _is_invisible(choice: Choice | None) -> bool:
    return choice is not None and choice.status == "invisible"


def _chunks(users: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(list(users))
    while chunk := list(islice(rest, CHUNK)):
        yield chunk
