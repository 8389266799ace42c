"""Every stream of a deployment, as data. `Log.ensure` makes the server agree with it.

The number of partitions is chosen when a deployment is created, recorded in each stream's metadata, and never
changes: an id's slot places it for ever.
"""

from dataclasses import dataclass, field

from domain.errors import DomainError
from streams import subjects

PARTITIONS_MAX = 1024  # one a slot


@dataclass(frozen=True, slots=True)
class Republish:
    """JetStream's own re-publication of what it stores, to core NATS."""

    source: str
    destination: str


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """One stream, before it is a server's.

    Attributes:
        atomic: takes atomic batches with an expected last sequence.
        newest_only: keeps of each subject the newest record, and no other.
        metadata: recorded with the stream; a difference on a later start is refused.
    """

    name: str
    subjects: tuple[str, ...]
    republish: Republish | None = None
    atomic: bool = True
    newest_only: bool = False
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Topology:
    """What a deployment consists of.

    Args:
        partitions: a power of two, 1…1024. One is fastest on one machine: its batches are larger.
        replicas: 1 embedded, 3 in a cluster.
    """

    partitions: int = 1
    replicas: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.partitions <= PARTITIONS_MAX or self.partitions & (self.partitions - 1):
            raise ValueError(f"partitions is a power of two from 1 to {PARTITIONS_MAX}, not {self.partitions}")

    def streams(self) -> list[StreamSpec]:
        """All streams, in the order they are made."""
        recorded = {"riverrun.partitions": str(self.partitions)}
        partitions = [
            StreamSpec(
                name=subjects.stream(family, partition),
                subjects=(subjects.partition_subjects(family, partition),),
                # Keys of reservations and pairs (`conv.<p>.dm.<hash>`) have one token more and are not republished.
                republish=Republish(f"{family}.{partition}.*", f"live.{family}.{{{{wildcard(1)}}}}"),
                metadata=recorded,
            )
            for family in subjects.FAMILIES
            for partition in range(self.partitions)
        ]
        return [
            *partitions,
            StreamSpec(name=subjects.DEAD, subjects=("dead.>",), atomic=False, metadata=recorded),
            StreamSpec(
                name=subjects.ARCHIVE, subjects=("archive.>",), atomic=False, newest_only=True, metadata=recorded
            ),
        ]


class TopologyMismatch(DomainError):
    """The server's streams were made for another topology. Starting is refused; nothing was changed."""

    code = "topology_mismatch"
