"""Who takes part in a case, and in which conversations: every partition has some, small ones and large ones."""

import random
from typing import Final

import msgspec

from domain.ids import creation_key, partition_of

USERS: Final = 12
SMALL: Final = 4  # members: events are addressed to each
LARGE: Final = 10  # members: above the fan-out limit, so that gateways listen to the conversation itself
PER_PARTITION: Final = 3  # conversations of each partition; the last one is large


class Made(msgspec.Struct, frozen=True):
    """A conversation to be made, and the one that there is then.

    Attributes:
        name: its creator's `client_conversation_id`, chosen so that it lies in `partition`.
        members: its creator is the first.
    """

    name: str
    partition: int
    members: list[str]
    conversation_id: str = ""
    version: int = 0


def populate(case: str, seed: int, *, partitions: int) -> list[Made]:
    """The conversations of a case. Their names are new with every case and seed, and so are they."""
    draw = random.Random(f"{seed}/{case}/population")
    users = [f"{case}-{number}" for number in range(USERS)]
    conversations = []
    for partition in range(partitions):
        for number in range(PER_PARTITION):
            members = draw.sample(users, LARGE if number == PER_PARTITION - 1 else SMALL)
            name = _name(f"{case}-{seed}-{number}", members[0], partition, partitions)
            conversations.append(Made(name, partition, members))
    return conversations


def _name(prefix: str, creator: str, partition: int, partitions: int) -> str:
    """A name that places the conversation in a partition."""
    number = 0
    while partition_of(creation_key(creator, f"{prefix}-{number}").slot, partitions) != partition:
        number += 1
    return f"{prefix}-{number}"
