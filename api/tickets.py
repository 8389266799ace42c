"""One-time tickets: what a browser, which cannot send headers there, opens a WebSocket or an EventSource with.

A ticket may end up in a log: it is worth one connection within 30 seconds, and only its hash is stored.
"""

import hashlib
import secrets
from typing import Final

import msgspec
import redis.asyncio
import structlog
from redis.exceptions import RedisError

from api.auth import Principal
from api.endpoint import Answer, Call, Endpoint
from api.errors import Unauthenticated
from api.schema import Ticket
from domain.errors import Unavailable
from projections.asking import answer

TICKET_S: Final = 30  # a page opens its connection right after it got the ticket
ANSWER_S: Final = 1.0  # Valkey answers in under a millisecond; after this it counts as down

log = structlog.get_logger(__name__)


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    user_id: str
    admin: bool
    expires_at: float
    issued_at: float | None


class TicketStore:
    """Tickets in Valkey, good at every node.

    Args:
        valkey: opened and closed by its maker.
    """

    def __init__(self, valkey: "redis.asyncio.Redis") -> None:
        self._valkey = valkey

    async def issue(self, principal: Principal) -> str:
        """A new ticket for a principal, good once within `TICKET_S` seconds.

        Raises:
            Unavailable: Valkey does not answer.
        """
        ticket = secrets.token_urlsafe(24)
        # Not that one may ask in SQL: a ticket opens sessions.
        kept = _Stored(principal.user_id, principal.admin, principal.expires_at, principal.issued_at)
        stored = msgspec.json.encode(kept)
        try:
            await answer(self._valkey.set(_key(ticket), stored, ex=TICKET_S), ANSWER_S)
        except (RedisError, OSError, TimeoutError) as error:
            raise _unavailable(error) from error
        return ticket

    async def redeem(self, ticket: str) -> Principal:
        """Whose ticket it is. The ticket is used up by this, also if the answer is lost on its way.

        Raises:
            Unauthenticated: unknown, used, or too old.
            Unavailable: Valkey does not answer.
        """
        try:
            stored = await answer(self._valkey.getdel(_key(ticket)), ANSWER_S)
        except (RedisError, OSError, TimeoutError) as error:
            raise _unavailable(error) from error
        if stored is None:
            raise Unauthenticated("this ticket is unknown, used or older than 30 s; get another")
        found = msgspec.json.decode(stored, type=_Stored)
        return Principal(found.user_id, found.admin, found.expires_at, found.issued_at)


def _key(ticket: str) -> str:
    return "ticket:" + hashlib.blake2b(ticket.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _unavailable(error: BaseException) -> Unavailable:
    log.warning("tickets need Valkey, which does not answer", error=repr(error))
    return Unavailable("tickets cannot be checked now; try again")


async def issue_ticket(call: Call[None, None]) -> Answer:
    return Answer(Ticket(await call.context.tickets.issue(call.principal), TICKET_S), 201)


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/tickets",
        issue_ticket,
        "A one-time ticket: `?ticket=` opens one WebSocket or EventSource where no header can be sent.",
        {201: (Ticket, "Use it within `expires_in` seconds.")},
    ),
)
