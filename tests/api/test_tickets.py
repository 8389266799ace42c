"""Tickets in a real Valkey: good once, and not for long."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from api.auth import Principal
from api.errors import Unauthenticated
from api.tickets import TICKET_S, TicketStore
from domain.errors import Unavailable
from runtime.embedded.child import free_port
from runtime.embedded.servers import EmbeddedServers

ALICE = Principal("alice", True, 1_800_000_000.5)


@pytest_asyncio.fixture(loop_scope="session")
async def valkey(servers: EmbeddedServers) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.Redis.from_url(servers.valkey_url)
    yield client
    await client.aclose()


async def test_a_ticket_is_good_once(valkey: redis.asyncio.Redis) -> None:
    tickets = TicketStore(valkey)
    ticket = await tickets.issue(ALICE)
    assert await tickets.redeem(ticket) == ALICE
    with pytest.raises(Unauthenticated):
        await tickets.redeem(ticket)


async def test_of_many_who_redeem_a_ticket_one_gets_it(valkey: redis.asyncio.Redis) -> None:
    tickets = TicketStore(valkey)
    ticket = await tickets.issue(ALICE)
    outcomes = await asyncio.gather(*(tickets.redeem(ticket) for _ in range(10)), return_exceptions=True)
    assert sum(outcome == ALICE for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Unauthenticated) for outcome in outcomes) == 9


@pytest.mark.parametrize("ticket", ["", "x", "x" * 10_000, "\0", "\ud800", "*"])
async def test_a_ticket_that_was_never_issued_is_refused(valkey: redis.asyncio.Redis, ticket: str) -> None:
    with pytest.raises(Unauthenticated):
        await TicketStore(valkey).redeem(ticket)


async def test_a_ticket_ends_by_itself_and_is_not_stored_as_it_is(valkey: redis.asyncio.Redis) -> None:
    before = set(await valkey.keys("ticket:*"))
    ticket = await TicketStore(valkey).issue(ALICE)
    (key,) = set(await valkey.keys("ticket:*")) - before
    assert 0 < await valkey.ttl(key) <= TICKET_S
    assert ticket.encode() not in key
    assert ticket.encode() not in (await valkey.get(key) or b"")


async def test_without_valkey_tickets_are_unavailable() -> None:
    nobody = redis.asyncio.Redis(port=free_port(), retry=Retry(NoBackoff(), 0))
    try:
        with pytest.raises(Unavailable):
            await TicketStore(nobody).issue(ALICE)
        with pytest.raises(Unavailable):
            await TicketStore(nobody).redeem("x")
    finally:
        await nobody.aclose()
