"""What the log holds, and what follows from it: which events each user was to be given."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from domain.events import ConversationCreated, Event, MemberAdded, MemberRemoved, MessagePosted
from streams import subjects
from streams.codec import decode
from streams.jetstream import JetStream
from streams.public import to_public
from tests.soak.holding import chained

_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Stay:
    """A user's membership: from the event that began it to the one that ended it, if one did."""

    first: int
    last: int | None = None


@dataclass
class History:
    """The log's conversations.

    Attributes:
        events: of each conversation, the JSON clients are pushed; version 1 first.
        stays: of each user, by conversation, in order.
        posted: of each conversation, by version, the `client_msg_id` of what was posted.
        faults: what the log itself has wrong.
    """

    events: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    stays: dict[str, dict[str, list[Stay]]] = field(default_factory=lambda: defaultdict(dict))
    posted: dict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    faults: list[str] = field(default_factory=list)
    _digests: dict[tuple[str, int], list[bytes]] = field(default_factory=dict)
    _sent: set[tuple[str, str, str]] = field(default_factory=set)

    def add(self, event: Event) -> None:
        """Take the log's next event; those of no conversation, and internal ones, are passed over."""
        public = to_public(event)
        if public is None:
            return
        id_, version = public.conversation_id, public.version
        events = self.events[id_]
        if version != len(events) + 1:
            self.faults.append(f"conversation {id_}: version {version} comes after {len(events)}")
        events.append(_encode(public))
        match event:
            case ConversationCreated():
                for user_id in event.members:
                    self.stays[user_id][id_] = [Stay(version)]
            case MemberAdded():
                self.stays[event.user_id].setdefault(id_, []).append(Stay(version))
            case MemberRemoved():
                self.stays[event.user_id][id_][-1].last = version
            case MessagePosted():
                message = (id_, event.actor_id, event.client_msg_id)
                if message in self._sent:
                    self.faults.append(f"conversation {id_}: {event.actor_id} posted {event.client_msg_id} twice")
                self._sent.add(message)
                self.posted[id_][version] = event.client_msg_id

    def version(self, conversation_id: str) -> int:
        """The newest."""
        return len(self.events.get(conversation_id, ()))

    @property
    def count(self) -> int:
        """Of all events."""
        return sum(map(len, self.events.values()))

    def digest(self, conversation_id: str, first: int, last: int) -> bytes | None:
        """Of the events from one version to another; `None` where there are none such."""
        events = self.events.get(conversation_id, [])
        if not 1 <= first <= last <= len(events):
            return None
        digests = self._digests.setdefault((conversation_id, first), [])
        while len(digests) <= last - first:
            digests.append(chained(digests[-1] if digests else b"", events[first - 1 + len(digests)]))
        return digests[last - first]

    def targets(self, users: Iterable[str], known: Mapping[str, int]) -> dict[str, dict[str, int]]:
        """For each user the version that they are to reach in each of their conversations.

        Args:
            known: the version of each conversation that was there before the clients came.
        """
        return {
            user_id: {
                id_: version
                for id_, stays in self.stays.get(user_id, {}).items()
                if (version := stays[-1].last or self.version(id_)) > known.get(id_, 0)
            }
            for user_id in users
        }


async def read_history(nats_url: str, *, partitions: int) -> History:
    """Read the whole log as it is now.

    Raises:
        LogUnavailable: it cannot be reached.
    """
    history = History()
    jetstream = await JetStream.connect(nats_url, name="soak")
    try:
        for partition in range(partitions):
            stream = subjects.stream(subjects.CONV, partition)
            async for delivery in jetstream.log.read(stream):
                history.add(decode(delivery))
    finally:
        await jetstream.close()
    return history
