"""Presence in Valkey: who is on which gateway, the leases of the gateways, and what users chose.

Everything here may be lost at any time: gateways write anew what they know (`api/users_here.py`). While Valkey does
not answer, every call raises `PresenceDown`, at once where it has just failed; that is logged once an outage.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import redis.asyncio
import structlog
from redis.exceptions import RedisError

from api import presence_scripts
from api.presence_view import Choice, ChosenStatus, Entry, Seen
from projections.asking import answer

CHUNK: Final = 250  # users a call: about a millisecond of Valkey's, which serves others too, and as much of ours
ANSWER_S: Final = 1.0  # Valkey answers in milliseconds; after this it counts as down
RETRY_S: Final = 1.0  # after a failure it is not asked for so long
KEEP_S: Final = 30 * 24 * 3600  # a user's choice and last_seen, after the last write
FORGET_MS: Final = 60_000  # after a lease's end: every gateway has noticed, and told its sessions

log = structlog.get_logger(__name__)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


class PresenceDown(Exception):
    """Valkey does not answer. Nothing is known; what was to be written may or may not have been."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a user's hash says of the user as such."""

    choice: Choice | None
    last_seen_ms: int | None


@dataclass(frozen=True, slots=True)
class Look:
    """What was read at one moment.

    Attributes:
        leases: those that are alive, each with the seconds that it has left.
        users: in the order asked for.
    """

    leases: Mapping[str, float]
    users: tuple[Seen, ...]


class PresenceStore:
    """One gateway's access.

    Args:
        valkey: opened and closed by its maker; answers bytes.
        gateway_id: this process's own, never another's.
        lease_s: how long a gateway counts as alive after it was last heard. The same for all of a deployment.
        prefix: of all keys.
    """

    def __init__(
        self, valkey: "redis.asyncio.Redis", gateway_id: str, *, lease_s: float, prefix: str = "riverrun:"
    ) -> None:
        self._lease_ms = round(lease_s * 1000)
        self._field = f"g:{gateway_id}"
        self._gateways = f"{prefix}gateways"
        self._user = f"{prefix}presence:"
        self._valkey = valkey
        self._write = valkey.register_script(presence_scripts.WRITE)
        self._look = valkey.register_script(presence_scripts.LOOK)
        self._choose = valkey.register_script(presence_scripts.CHOOSE)
        self._restore = valkey.register_script(presence_scripts.RESTORE)
        self._forget = valkey.register_script(presence_scripts.FORGET)
        self._is_down = False
        self._silent_until_s = 0.0

    async def write(
        self, lease: str, entries: Mapping[str, Entry | None], now_ms: int, *, begin: bool = False
    ) -> dict[str, Known] | None:
        """Renew a lease, and write what became of at most `CHUNK` users: their entry here, or that they left.

        Args:
            begin: let the lease begin, which is else a reason not to write.

        Returns:
            What is known of each user; `None` when the lease has ended or was lost, and nothing was written.

        Raises:
            PresenceDown.
        """
        written = [b"" if entry is None else _encode(entry) for entry in entries.values()]
        answer = await self._ask(
            self._write,
            [self._gateways, *(self._user + user for user in entries)],
            [lease, self._lease_ms, int(begin), self._field, KEEP_S, now_ms, *written],
        )
        if answer is None:
            return None
        return {user: _known(*found) for user, found in zip(entries, answer, strict=True)}

    async def end(self, lease: str) -> None:
        """Let a lease end now, and with it all entries that rest on it. Raises `PresenceDown`."""
        await self._ask(self._valkey.zrem, self._gateways, lease)

    async def look(self, users: Sequence[str]) -> Look:
        """At most `CHUNK` users, and the leases that are alive. Entries that died long ago are cleared away.

        Raises:
            PresenceDown.
        """
        now_ms, flat, hashes = await self._ask(self._look, [self._gateways, *(self._user + user for user in users)], [])
        expiries = {lease.decode(): float(expiry) for lease, expiry in _pairs(flat)}
        stale: list[tuple[str, bytes, bytes, str]] = []
        seen = []
        for user, found in zip(users, hashes, strict=True):
            fields = dict(_pairs(found))
            known = _known(fields.pop(b"status", b""), fields.pop(b"last_seen", b""))
            alive, crashed, last_seen_ms = [], set(), known.last_seen_ms or 0
            is_invisible = known.choice is not None and known.choice.status == "invisible"
            for field, packed in fields.items():
                try:
                    entry = _decode(packed)
                except msgspec.DecodeError:
                    continue  # of another release, or nobody's: it says nothing
                expiry = expiries.get(entry.lease)
                if expiry is not None and expiry > now_ms:
                    alive.append(entry)
                    continue
                there_ms = 0 if expiry is None else int(expiry) - self._lease_ms
                if not is_invisible:
                    last_seen_ms = max(last_seen_ms, there_ms)
                if expiry is not None:
                    crashed.add(entry.lease)
                if expiry is None or expiry + FORGET_MS < now_ms:
                    stale.append((user, field, packed, str(there_ms) if there_ms else ""))
            seen.append(Seen(user, tuple(alive), known.choice, last_seen_ms or None, frozenset(crashed)))
        if stale:
            keys = [self._user + user for user, *_ in stale]
            await self._ask(self._forget, keys, [value for _, *values in stale for value in values])
        leases = {lease: (expiry - now_ms) / 1000 for lease, expiry in expiries.items() if expiry > now_ms}
        return Look(leases, tuple(seen))

    async def choose(self, user_id: str, choice: Choice) -> None:
        """Keep what a user chose; the last one to be kept stands. Raises `PresenceDown`."""
        await self._ask(self._choose, [self._user + user_id], [choice.at_ms, choice.status, KEEP_S])

    async def chosen(self, user_id: str) -> ChosenStatus:
        """What a user chose last. Raises `PresenceDown`."""
        packed = await self._ask(self._valkey.hget, self._user + user_id, "status")
        choice = Choice.unpacked(packed or b"")
        return choice.status if choice is not None else "online"

    async def restore(self, users: Mapping[str, Known]) -> None:
        """Put back what is known of at most `CHUNK` users, where nothing newer is there. Raises `PresenceDown`."""
        values: list[bytes | int] = [KEEP_S]
        for known in users.values():
            values.append(known.choice.packed() if known.choice is not None else b"")
            values.append(known.last_seen_ms if known.last_seen_ms is not None else b"")
        await self._ask(self._restore, [self._user + user for user in users], values)

    async def _ask(self, command: Any, *arguments: Any) -> Any:
        # `Any`: a script or a method of redis-py, whose answers are typed as anything.
        began_s = time.monotonic()
        if began_s < self._silent_until_s:
            raise PresenceDown("Valkey did not answer a moment ago")
        try:
            found = await answer(command(*arguments), ANSWER_S)
        except (RedisError, OSError, TimeoutError) as error:
            self._silent_until_s = time.monotonic() + RETRY_S
            if not self._is_down:
                self._is_down = True
                log.warning("presence needs Valkey, which does not answer; it is unknown for now", error=repr(error))
            # Those that wait in the pool are broken as well, and each would fail once more when Valkey is back.
            await self._valkey.connection_pool.disconnect(inuse_connections=False)
            raise PresenceDown(repr(error)) from error
        if self._is_down and began_s >= self._silent_until_s:  # an answer that was on its way says nothing
            self._is_down = False
            log.info("presence is known again")
        return found


def _known(status: bytes, last_seen: bytes) -> Known:
    return Known(Choice.unpacked(status), int(last_seen) if last_seen else None)


def _pairs(flat: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(flat[::2], flat[1::2], strict=True))
