"""Who owns which partition: rendezvous hashing over the live nodes.

Every node computes the same owners from the same members; when one node comes or goes, only its share of the
partitions moves. Ownership only saves conflicts; what keeps writers apart is the log's expected sequence.
"""

import hashlib
from collections.abc import Iterable


class Ring:
    """The owners among a set of nodes. Immutable."""

    def __init__(self, nodes: Iterable[str]) -> None:
        self.nodes = frozenset(nodes)

    def owner(self, family: str, partition: int) -> str | None:
        """The node that owns a partition; `None` when there is no node."""
        return max(self.nodes, key=lambda node: _weight(node, family, partition), default=None)

    def owned(self, node: str, family: str, partitions: int) -> set[int]:
        """The partitions that a node owns."""
        return {partition for partition in range(partitions) if self.owner(family, partition) == node}


def _weight(node: str, family: str, partition: int) -> bytes:
    return hashlib.blake2b(f"{node}\x00{family}\x00{partition}".encode(), digest_size=8).digest()
