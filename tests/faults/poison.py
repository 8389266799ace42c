"""Poison: what a projection cannot apply. A message that a read model refuses, which can be mended; and bytes that are
no event at all, published straight into the log, which cannot."""

import asyncio
import os
import sys
import time
from typing import Final

import msgspec
import psycopg

from domain.ids import EPOCH_MS, compose
from projections.dead import dead_events
from runtime.settings import environment_for
from streams import subjects
from streams.jetstream import JetStream
from tests.faults.load import Load
from tests.faults.population import Made
from tests.faults.site import Site

WORD: Final = "poison"
DEAD_S: Final = 30.0
REFUSE: Final = f"ALTER TABLE messages ADD CONSTRAINT faults_poison CHECK (body NOT LIKE '%{WORD}%')"
MEND: Final = "ALTER TABLE messages DROP CONSTRAINT IF EXISTS faults_poison"


async def refuse(site: Site, load: Load, made: Made) -> None:
    """Have a read model refuse a message that was acked, and wait until it is dead."""
    await _execute(site, REFUSE)
    before = await dead(site)
    sender = load.sender(made.members[0])
    message = load.message(sender, made.conversation_id, f"{WORD} to the read model")
    sender.ask(message)
    give_up_s = time.monotonic() + DEAD_S
    while await dead(site) == before:
        if time.monotonic() > give_up_s:
            raise TimeoutError("the poison was not found")
        await asyncio.sleep(0.2)


async def garble(site: Site, partition: int) -> None:
    """Publish bytes that are no event into a partition, as nobody should, under the id of no conversation.

    They stay in the log for ever, so `site.planted` says how `riverrun verify` is to name them.
    """
    id_ = compose(EPOCH_MS + 1, partition, 1)
    subject = subjects.aggregate(subjects.CONV, partition, str(id_))
    async with site.jetstream() as client:
        answer = msgspec.json.decode((await client.request(subject, b"\xc1 not an event", timeout=10)).data)
    site.planted.append(f"log: {answer['stream']} sequence {answer['seq']}:")


async def replay(site: Site) -> None:
    """Mend the read model, and replay what is dead. What is no event stays so."""
    await _execute(site, MEND)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "runtime.cli", "dead", "replay", "--url", site.gateway_urls[0]),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **environment_for(site.settings)},
    )
    output = (await process.communicate())[0].decode()
    if "1 events replayed" not in output:
        raise AssertionError(f"riverrun dead replay said: {output}")


async def dead(site: Site) -> int:
    """How many events are dead."""
    jetstream = await JetStream.connect(site.settings.nats_url, name="faults")
    try:
        return len(await dead_events(jetstream.log))
    finally:
        await jetstream.close()


async def _execute(site: Site, statement: str) -> None:
    async with await psycopg.AsyncConnection.connect(site.settings.postgres_url, autocommit=True) as connection:
        await connection.execute(statement.encode())
