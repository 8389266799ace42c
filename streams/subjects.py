"""The only author of stream names, subjects and header names.

conv.<partition>.<conversation_id>     events of one conversation       in CONV-<partition>
conv.<partition>.dm.<hash>             the reservation of a pair         in CONV-<partition>
conv.<partition>.new.<hash>            the reservation of a creation     in CONV-<partition>
conv.<partition>.pair.<hash>           who of a pair blocked the other   in CONV-<partition>
user.<partition>.<user_id, encoded>    events of one user                in USER-<partition>
live.conv.<conversation_id>            republished by JetStream: the same events, not stored; and signals
live.user.<user_id, encoded>           what concerns one user, not stored: their own events, republished by
                                       JetStream; what the fan-out addresses to them; signals
live.presence.<user_id, encoded>       that a user's presence has changed
signal.conv.<conversation_id>          a signal that the fan-out is to bring to the members
node.<node id>                         whether a node is there: answered by it, with nothing
cmd.<family>.<partition>               commands for the partition's writer, request and reply
trace.push                             asks every gateway what became of one event
trace.answer.<token>                   what they answer, to whoever asked
dead.<projection>.<partition>          events a projection could not apply   in DEAD
archive.<stream>                       bounds of the newest batch to be archived   in ARCHIVE
archive.<stream>.trimmed               up to where the stream has forgotten        in ARCHIVE
es.<stream>.<originator id, encoded>   events of an application that is not Riverrun's (`streams.recorders`), in its own
                                       stream
"""

import re
from typing import Final
from urllib.parse import quote, unquote

CONV: Final = "conv"  # the family of conversations
USER: Final = "user"  # the family of users
FAMILIES: Final = (CONV, USER)

DEAD: Final = "DEAD"  # the stream of dead events
ARCHIVE: Final = "ARCHIVE"  # the stream of what is being archived, and trimmed

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
HIGHEST: Final = "Rr-Highest"  # of an application's event that came after one of a higher version: the highest so far

# On a signal that is no event: its kind (`typing`, `receipt`), and the user it is from.
SIGNAL: Final = "Rr-Signal"
SENDER: Final = "Rr-Sender"

# With an event in DEAD: where it stood in the log, and why it could not be applied.
DEAD_STREAM: Final = "Rr-Dead-Stream"
DEAD_SEQUENCE: Final = "Rr-Dead-Sequence"
DEAD_SUBJECT: Final = "Rr-Dead-Subject"
DEAD_ERROR: Final = "Rr-Dead-Error"
DEAD_REPLAYED: Final = "Rr-Dead-Replayed"  # on a record of its own, later: which of DEAD has been applied since

# JetStream's own, on what it republishes.
NATS_STREAM: Final = "Nats-Stream"
NATS_SEQUENCE: Final = "Nats-Sequence"
NATS_SUBJECT: Final = "Nats-Subject"
NATS_TIME: Final = "Nats-Time-Stamp"  # when it was stored

TRACE_PUSH: Final = "trace.push"

_PARTITION_STREAM = re.compile(f"({'|'.join(FAMILIES).upper()})-(0|[1-9][0-9]{{0,3}})")
_USER_SAFE = str.maketrans({".": "%2E", "*": "%2A", ">": "%3E", "%": "%25", " ": "%20"})


def stream(family: str, partition: int) -> str:
    """The name of a partition's stream: `CONV-3`."""
    return f"{family.upper()}-{partition}"


def partition_subjects(family: str, partition: int) -> str:
    """What a partition's stream stores."""
    return f"{family}.{partition}.>"


def aggregate(family: str, partition: int, aggregate_id: str) -> str:
    """The one subject of an aggregate: a decimal id, a key (`dm.<hash>`), or in `USER` a user id."""
    return f"{family}.{partition}.{_encoded(aggregate_id) if family == USER else aggregate_id}"


def aggregate_id(subject: str) -> str:
    """The aggregate a stored subject belongs to."""
    family, _, token = subject.split(".", 2)
    return unquote(token) if family == USER else token


def stays(subject: str) -> bool:
    """Whether a stored subject is never trimmed: the key of a reservation or a pair (`conv.<partition>.dm.<hash>`).

    They are few and short, and have no time in their name: whether one is new, the log alone is to say.
    """
    return subject.count(".") > 2  # a family, a partition and an id have two


def trimmable(stream_name: str) -> str:
    """The subjects of a partition's stream that do not stay (`stays`)."""
    family, _, partition = stream_name.rpartition("-")
    return f"{family.lower()}.{partition}.*"


def family_of(subject: str) -> str:
    """The family a stored subject belongs to."""
    return subject.partition(".")[0]


def _encoded(user_id: str) -> str:
    return user_id.translate(_USER_SAFE)


def live_conversation(conversation_id: str) -> str:
    """Where the events of one conversation are heard as they are stored."""
    return f"live.conv.{conversation_id}"


def live_user(user_id: str) -> str:
    """Where a user's gateways hear what concerns the user. Dots and wildcards of the id are percent-encoded."""
    return f"live.user.{_encoded(user_id)}"


def live_presence(user_id: str) -> str:
    """Where it is heard that a user's presence has changed."""
    return f"live.presence.{_encoded(user_id)}"


def signal_conversation(conversation_id: str) -> str:
    """Where the fan-out takes signals for the members of a conversation (`*`: of all)."""
    return f"signal.conv.{conversation_id}"


def command(family: str, partition: int) -> str:
    """Where a partition's writer takes commands."""
    return f"cmd.{family}.{partition}"


def node(node_id: str) -> str:
    """Where a node answers that it is there."""
    return f"node.{node_id}"


def trace_answer(token: str) -> str:
    """Where a question about a push is answered."""
    return f"trace.answer.{token}"


def dead(projection: str, partition: int) -> str:
    """Where events go that a projection could not apply."""
    return f"dead.{projection}.{partition}"


def archive(stream_name: str) -> str:
    """Where the bounds of a stream's batches are settled before they are archived."""
    return f"archive.{stream_name}"


def trimmed(stream_name: str) -> str:
    """Where it is told up to where a stream has forgotten."""
    return f"archive.{stream_name}.trimmed"


def recorded(stream_name: str, originator_id: str) -> str:
    """The one subject of an application's aggregate. Anything may be in its id."""
    # `quote` leaves dots, which separate tokens.
    return f"es.{stream_name}.{quote(originator_id, safe='').replace('.', '%2E')}"


def recorded_subjects(stream_name: str) -> str:
    """What an application's stream stores."""
    return f"es.{stream_name}.*"


def originator_id(subject: str) -> str:
    """The aggregate that an application's subject belongs to."""
    return unquote(subject.rpartition(".")[2])


def partition_of(stream_name: str) -> tuple[str, int] | None:
    """The family and the partition of one of Riverrun's own streams (`CONV-3`); `None` for any other name."""
    match = _PARTITION_STREAM.fullmatch(stream_name)
    return (match[1].lower(), int(match[2])) if match else None


def consumer(reader: str, partition: int) -> str:
    """The durable consumer of a reader (a projection, the fan-out) on a partition."""
    return f"{reader}-{partition}"
