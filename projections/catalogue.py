"""Every projection: what feeds it, how it is made, and the tables that are its own."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Table

from projections import tables
from projections.conversations import ConversationsProjection
from projections.heads import HeadsProjection
from projections.markers import MarkersProjection
from projections.messages import MessagesProjection
from projections.projection import Projection
from projections.users import UsersProjection
from streams import subjects


class _Entry(NamedTuple):
    family: str
    make: Callable[[], Projection]
    tables: Sequence[Table]


CATALOGUE: Final[dict[str, _Entry]] = {
    "conversations": _Entry(
        subjects.CONV, ConversationsProjection, (tables.conversations, tables.members, tables.departures)
    ),
    "heads": _Entry(subjects.CONV, HeadsProjection, (tables.heads,)),
    "messages": _Entry(subjects.CONV, MessagesProjection, (tables.messages, tables.changes)),
    "users": _Entry(subjects.USER, UsersProjection, (tables.users, tables.devices, tables.blocks)),
    "markers": _Entry(subjects.USER, MarkersProjection, (tables.markers, tables.own_settings)),
}
NAMES: Final = tuple(CATALOGUE)


def projection_of(name: str) -> Projection:
    """A projection by its name."""
    return CATALOGUE[name].make()


def projections_of(family: str, names: Sequence[str] = NAMES) -> tuple[Projection, ...]:
    """Those that a family of partitions feeds; of some names only."""
    return tuple(entry.make() for name, entry in CATALOGUE.items() if entry.family == family and name in names)


def tables_of(name: str) -> Sequence[Table]:
    """The tables that a projection has to itself."""
    return CATALOGUE[name].tables
