"""The only author of stream names, subjects and header names.

conv.<partition>.<conversation_id>     events of one conversation       in CONV-<partition>
conv.<partition>.dm.<hash>             the reservation of a pair         in CONV-<partition>
conv.<partition>.new.<hash>            the reservation of a creation     in CONV-<partition>
live.conv.<conversation_id>            republished by JetStream: the same events, not stored
live.user.<user_id, encoded>           what concerns one user, not stored
cmd.<family>.<partition>               commands for the partition's writer, request and reply
dead.<projection>.<partition>          events a projection could not apply   in DEAD
"""

from typing import Final

CONV: Final = "conv"  # the family of conversations

# Header names. The type, version, time and actor are also in the body; a reader of headers alone
# (a router, a tool, a trace) need not decode it.
TYPE: Final = "Rr-Type"
VERSION: Final = "Rr-Version"
OCCURRED_AT: Final = "Rr-At"  # Unix milliseconds
ACTOR: Final = "Rr-Actor"
CORRELATION: Final = "Rr-Correlation"  # the request that caused this, end to end
CAUSATION: Final = "Rr-Causation"  # what caused this directly
TRACE: Final = "traceparent"  # W3C trace context
APPEND: Final = "Rr-Append"  # names one append, on its first event: tells after a timeout whether it landed

# With an event in DEAD: where it stood in the log, and why it could not be applied.
DEAD_STREAM: Final = "Rr-Dead-Stream"
DEAD_SEQUENCE: Final = "Rr-Dead-Sequence"
DEAD_SUBJECT: Final = "Rr-Dead-Subject"
DEAD_ERROR: Final = "Rr-Dead-Error"

# JetStream's own, on what it republishes.
NATS_STREAM: Final = "Nats-Stream"
NATS_SEQUENCE: Final = "Nats-Sequence"
NATS_SUBJECT: Final = "Nats-Subject"

_USER_SAFE = str.maketrans({".": "%2E", "*": "%2A", ">": "%3E", "%": "%25", " ": "%20"})


def stream(family: str, partition: int) -> str:
    """The name of a partition's stream: `CONV-3`."""
    return f"{family.upper()}-{partition}"


def partition_subjects(family: str, partition: int) -> str:
    """What a partition's stream stores."""
    return f"{family}.{partition}.>"


def aggregate(family: str, partition: int, aggregate_id: str) -> str:
    """The one subject of an aggregate: a decimal id, or a reservation's key (`dm.<hash>`)."""
    return f"{family}.{partition}.{aggregate_id}"


def aggregate_id(subject: str) -> str:
    """The aggregate a stored subject belongs to."""
    return subject.split(".", 2)[2]


def live_conversation(conversation_id: str) -> str:
    """Where the events of one conversation are heard as they are stored."""
    return f"live.conv.{conversation_id}"


def live_user(user_id: str) -> str:
    """Where a user's gateways hear what concerns the user. Dots and wildcards of the id are percent-encoded."""
    return f"live.user.{user_id.translate(_USER_SAFE)}"


def command(family: str, partition: int) -> str:
    """Where a partition's writer takes commands."""
    return f"cmd.{family}.{partition}"


def dead(projection: str, partition: int) -> str:
    """Where events go that a projection could not apply."""
    return f"dead.{projection}.{partition}"


def consumer(reader: str, partition: int) -> str:
    """The durable consumer of a reader (a projection, the fan-out) on a partition."""
    return f"{reader}-{partition}"
