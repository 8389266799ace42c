"""What every handler may use, made once by the composition root and kept in `app.state.context`."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from api.auth import Authenticator
from api.recent_writes import RecentWrites
from commands.ports import Dispatcher
from projections.hot import HotStore
from projections.past.past import Past
from projections.people import UserQueries
from projections.queries import Queries
from projections.sync import SyncQueries

if TYPE_CHECKING:  # their handlers use the context themselves
    from api.analysts import Analysts
    from api.gateway import Gateway
    from api.tickets import TicketStore


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one request.

    Attributes:
        body_bytes: of a request's body; more is `too_large`.
        readiness_s: how long one check of `/readyz` may take; longer is not ready.
    """

    body_bytes: int = 256 * 1024
    readiness_s: float = 2.0


@dataclass(frozen=True, slots=True)
class ApiContext:
    """The API's means.

    Attributes:
        readiness: named checks that raise while what they are about is not ready.
        versions: of Riverrun and what it runs on, for `/version`; `riverrun` is among them.
        analysts: who asks the archive in SQL; `None`: nobody is answered.
        past_turns: how many questions about the past are folded at once; sessions are served in between.
        random_slot: any slot, 0…1023: where a new conversation is placed.
    """

    dispatcher: Dispatcher
    queries: Queries
    users: UserQueries
    sync: SyncQueries
    past: Past
    hot: HotStore
    authenticator: Authenticator
    tickets: "TicketStore"
    gateway: "Gateway"
    readiness: Mapping[str, Callable[[], Awaitable[None]]]
    versions: dict[str, str]
    random_slot: Callable[[], int]
    limits: Limits = Limits()
    analysts: "Analysts | None" = None
    recent_writes: RecentWrites = field(default_factory=RecentWrites)
    past_turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
