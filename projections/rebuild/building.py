"""What the steps of a rebuild work with."""

from typing import NamedTuple

from psycopg_pool import AsyncConnectionPool

from projections.projection import Connection
from projections.rebuild.deaths import Deaths
from projections.rebuild.draft import Draft


class Building(NamedTuple):
    """A draft in the making.

    Attributes:
        live: sees what is in force; has the lock of the one that has drafts.
        pool: sees the draft.
        deaths: what could not be applied to it.
    """

    live: Connection
    pool: AsyncConnectionPool
    draft: Draft
    deaths: Deaths
