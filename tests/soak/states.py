"""The end state as the server tells it, for some users: their inbox, and who is online."""

import asyncio
import random
from collections.abc import Sequence

import msgspec
from psycopg_pool import AsyncConnectionPool

from projections.inbox import InboxQueries
from runtime.client import ClientError, HttpClient, Retry
from tests.soak.checker import Verdict
from tests.soak.deployment import PARTITIONS, Deployment
from tests.soak.history import History
from tests.soak.holding import Account
from tests.soak.processes import LoadProcess

SAMPLE = 40
PAGE = 20
PRESENCE_S = 30.0  # after which presence is what it is: a lease's time and a debounce's, twice
INBOX_S = 10.0
POLL_S = 0.25


async def check_inboxes(
    deployment: Deployment, history: History, accounts: Sequence[Account], verdict: Verdict, draw: random.Random
) -> None:
    """An inbox as it is served, from the hot store, is the one that Postgres has, and what the log and the user's own
    client say."""
    async with AsyncConnectionPool(deployment.servers.postgres_url, open=False, min_size=1, max_size=1) as pool:
        queries = InboxQueries(pool, partitions=PARTITIONS)
        for account in draw.sample(list(accounts), min(SAMPLE, len(accounts))):
            gateway = draw.choice(deployment.gateways)
            async with HttpClient(gateway.url, deployment.token(account.user_id)) as client:
                served: list[dict[str, object]] | None = None
                kept: list[dict[str, object]] = []
                try:
                    async with asyncio.timeout(INBOX_S):
                        while (served := await _served(client)) != (kept := await _kept(queries, account.user_id)):
                            await asyncio.sleep(POLL_S)  # the hot store trails the read models by moments
                except TimeoutError:
                    if served is None:
                        verdict.fault(f"{account.user_id}'s inbox cannot be read within {INBOX_S:.0f} s")
                        continue
                    verdict.fault(f"{account.user_id}'s inbox is {_difference(served, kept)}")
                except ClientError as error:
                    verdict.fault(f"{account.user_id}'s inbox cannot be read: {error}")
                    continue
            _compare(account, history, kept, verdict)


async def _served(client: HttpClient) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = []
    page = None
    while True:
        answer = await Retry(for_s=INBOX_S)(
            lambda page=page: client.request("GET", "/v1/inbox", query={"limit": PAGE, "page": page})  # type: ignore[misc]
        )
        entries += answer["conversations"]
        if (page := answer["page"]) is None:
            return entries


async def _kept(queries: InboxQueries, user_id: str) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = []
    page = None
    while True:
        inbox = await queries.page(user_id, limit=PAGE, page=page)
        entries += msgspec.json.decode(msgspec.json.encode(inbox.conversations))
        if (page := inbox.page) is None:
            return entries


def _difference(served: list[dict[str, object]], kept: list[dict[str, object]]) -> str:
    if len(served) != len(kept):
        return f"{len(served)} conversations, {len(kept)} in Postgres"
    ours, theirs = next((ours, theirs) for ours, theirs in zip(served, kept, strict=True) if ours != theirs)
    return f"{ours}, in Postgres {theirs}"


def _compare(account: Account, history: History, inbox: list[dict[str, object]], verdict: Verdict) -> None:
    stays = history.stays.get(account.user_id, {})
    due = {id_: history.version(id_) for id_, of in stays.items() if of[-1].last is None}
    found = {str(entry["conversation_id"]): entry for entry in inbox}
    for id_ in sorted({*due, *found}):
        entry, what = found.get(id_), f"{account.user_id}'s inbox, {id_}"
        if entry is None or id_ not in due:
            verdict.fault(f"{what}: " + ("is missing" if entry is None else "is there, and the user has left"))
            continue
        if entry["version"] != due[id_]:
            verdict.fault(f"{what}: version {entry['version']}, in the log {due[id_]}")
        told = account.holdings[id_].read_seq if id_ in account.holdings else 0
        if entry["read_seq"] != told:
            verdict.fault(f"{what}: read up to {entry['read_seq']}, and {account.client} was told {told}")


async def check_presence(
    deployment: Deployment,
    owner: str,
    users: Sequence[str],
    loads: Sequence[LoadProcess],
    verdict: Verdict,
    draw: random.Random,
) -> None:
    """Of some users half disconnect: those are seen offline, the others online."""
    sample = draw.sample(list(users), min(2 * SAMPLE, len(users)))
    gone = set(sample[::2])
    await asyncio.gather(*(load.tell("leave", sorted(gone)) for load in loads))
    wanted = {user_id: "offline" if user_id in gone else "online" for user_id in sample}
    seen: dict[str, str] = {}
    async with HttpClient(draw.choice(deployment.gateways).url, deployment.token(owner)) as client:
        try:
            async with asyncio.timeout(PRESENCE_S):
                while seen != wanted:
                    answer = await client.request("POST", "/v1/presence", json={"users": sample})
                    seen = {view["user_id"]: view["status"] for view in answer["users"]}
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            pass
        except ClientError as error:
            verdict.fault(f"presence cannot be asked for: {error}")
            return
    for user_id, status in wanted.items():
        if seen.get(user_id) != status:
            verdict.fault(f"{user_id} is {status} and seen as {seen.get(user_id, 'unknown')}")
