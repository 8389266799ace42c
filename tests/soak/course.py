"""The course of a soak: who is made, what is done to the deployment meanwhile, and what is looked at in the end."""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import redis.asyncio

from runtime.client import HttpClient, Retry
from tests.soak.checker import Verdict, check
from tests.soak.deployment import PARTITIONS, Deployment, deployed
from tests.soak.history import read_history
from tests.soak.load import Posting, Share
from tests.soak.memory import Sampler
from tests.soak.population import Plan, Population, populate
from tests.soak.processes import LoadProcess
from tests.soak.report import CatchUp, Kill, Report, catch_ups
from tests.soak.states import check_inboxes, check_presence
from tests.soak.tally import Tally

MEMBERS_PER_CALL = 999  # the protocol's limit, less the creator
MAKING_AT_ONCE = 8
PATIENCE_S = 30.0  # for a call while gateways come and go
SETTLE_S = 40.0  # for the last client to have everything: several audits
CHANGES_A_SECOND = 1.0

Say = Callable[[str], None]


class Course:
    """One soak."""

    def __init__(self, plan: Plan, deployment: Deployment, say: Say) -> None:
        self.plan = plan
        self.kills: list[Kill] = []
        self._deployment = deployment
        self._say = say
        self._draw = random.Random(plan.seed)
        self._population: Population = populate(plan)
        self._known: dict[str, int] = {}  # the version of each conversation before the clients come
        self._members: dict[str, set[str]] = {}  # the users of each that are in it
        self._ids: list[str] = []
        self._owner = [HttpClient(role.url, deployment.token(self._population.owner)) for role in deployment.gateways]
        self._loads: list[LoadProcess] = []
        self._retry = Retry(for_s=PATIENCE_S)
        self._memory = Sampler()

    async def run(self) -> tuple[Report, list[CatchUp], Verdict, Tally]:
        """Everything, from the first conversation to the verdict."""
        async with AsyncExitStack() as stack:
            for client in self._owner:
                stack.push_async_callback(client.close)
            await self._make()
            for share in self._shares():
                self._loads.append(load := LoadProcess(share))
                stack.push_async_callback(load.end)
            self._say(f"connecting {self.plan.clients:,} clients")
            await self._tell("connect")
            await self._tell("begin")
            began_s = time.monotonic()
            await self._disturb()
            seconds = time.monotonic() - began_s
            self._say("posting has ended; waiting until all clients have everything")
            await self._tell("quieten")
            return await self._examine(seconds)

    # -- the beginning --------------------------------------------------------------------------------------

    async def _make(self) -> None:
        """Make the conversations."""
        gate = asyncio.Semaphore(MAKING_AT_ONCE)
        made = 0

        async def make(number: int) -> str:
            nonlocal made
            members = self._population.conversations[number].members
            async with gate:
                view = await self._retry(
                    lambda: self._anybody().create_conversation(
                        "group",
                        members[:MEMBERS_PER_CALL],
                        name=f"soak {number}",
                        client_conversation_id=f"soak-{number}",
                    )
                )
                for start in range(MEMBERS_PER_CALL, len(members), MEMBERS_PER_CALL):
                    more = members[start : start + MEMBERS_PER_CALL]
                    view = await self._change(view["conversation_id"], more, [])
            made += 1
            self._say(f"made {made:,} of {self.plan.conversations:,} conversations")
            self._known[view["conversation_id"]] = view["version"]
            self._members[view["conversation_id"]] = set(members)
            return str(view["conversation_id"])

        self._ids = list(await asyncio.gather(*map(make, range(len(self._population.conversations)))))

    def _shares(self) -> list[Share]:
        """The clients, dealt out; the devices of one user to one process."""
        plan, users = self.plan, self._population.users
        known: dict[str, dict[str, int]] = {user_id: {} for user_id in users}
        for id_, members in self._members.items():
            for user_id in members & known.keys():
                known[user_id][id_] = self._known[id_]
        shares = []
        for number in range(plan.processes):
            mine = set(users[number :: plan.processes])
            postings = [
                Posting(id_, conversation.size, own)
                for id_, conversation in zip(self._ids, self._population.conversations, strict=True)
                if (own := [user_id for user_id in conversation.members if user_id in mine])
            ]
            shares.append(
                Share(
                    name=f"load-{plan.seed}-{number}",
                    gateways=[role.url for role in self._deployment.gateways],
                    seats=[seat for seat in self._population.seats if seat.user_id in mine],
                    tokens={user_id: self._deployment.token(user_id) for user_id in mine},
                    known={user_id: known[user_id] for user_id in mine},
                    postings=postings,
                    rate=plan.rate / plan.processes,
                    stay_s=plan.stay_s,
                )
            )
        return shares

    # -- what is done to it ---------------------------------------------------------------------------------

    async def _disturb(self) -> None:
        """Kill gateways, flush Valkey, change members, for as long as is planned."""
        plan = self.plan
        until_s = asyncio.get_running_loop().time() + plan.seconds
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(work)
                for work in (
                    self._kill_in_turn(until_s),
                    self._flush(),
                    self._change_members(),
                    self._tell_progress(),
                    self._memory.run(self._deployment.pids),
                )
            ]
            await asyncio.sleep(plan.seconds)
            for task in tasks[1:]:
                task.cancel()

    async def _kill_in_turn(self, until_s: float) -> None:
        clock = asyncio.get_running_loop().time
        due_s = clock() + self.plan.kill_every_s
        while due_s < until_s - self.plan.kill_every_s / 4:
            await asyncio.sleep(due_s - clock())
            gateway = len(self.kills) % len(self._deployment.gateways)
            self.kills.append(Kill(gateway, time.monotonic()))
            await self._deployment.gateways[gateway].kill()
            await self._deployment.gateways[gateway].start()
            due_s += self.plan.kill_every_s

    async def _flush(self) -> None:
        await asyncio.sleep(self.plan.seconds / 2)
        async with redis.asyncio.Redis.from_url(self._deployment.servers.valkey_url) as valkey:
            await valkey.flushall()

    async def _change_members(self) -> None:
        users = self._population.users
        while True:
            await asyncio.sleep(1 / CHANGES_A_SECOND)
            id_ = self._draw.choice(self._ids)
            members = self._members[id_]
            user_id = self._draw.choice(users if self._draw.random() < 0.5 else sorted(members) or users)
            if user_id in members and len(members) > 1:
                members.discard(user_id)
                await self._change(id_, [], [user_id])
            else:
                members.add(user_id)
                await self._change(id_, [user_id], [])

    async def _change(self, conversation_id: str, add: list[str], remove: list[str]) -> dict[str, object]:
        return await self._retry(lambda: self._anybody().change_members(conversation_id, add=add, remove=remove))

    def _anybody(self) -> HttpClient:
        """The owner, at one gateway or another."""
        return self._draw.choice(self._owner)

    async def _tell_progress(self) -> None:
        began_s = time.monotonic()
        while True:
            tally = await self._tally()
            self._say(
                f"{time.monotonic() - began_s:5.0f} s  {tally.current:,} current  {tally.acked:,} messages  "
                f"{tally.deliveries:,} deliveries  {tally.reconnects:,} reconnects, {tally.recovered:,} recovered  "
                f"{len(self.kills)} kills"
            )
            await asyncio.sleep(1)

    # -- the end --------------------------------------------------------------------------------------------

    async def _examine(self, seconds: float) -> tuple[Report, list[CatchUp], Verdict, Tally]:
        plan, users = self.plan, self._population.users
        history = await read_history(self._deployment.servers.nats_url, partitions=PARTITIONS)
        lacking = await self._tell("settle", history.targets(users, self._known), SETTLE_S)
        tally = await self._tally()
        accounts = [account for of_load in await self._tell("accounts") for account in of_load]
        self._say("comparing with the log")
        verdict = check(history, self._known, accounts)
        for what in [what for of_load in lacking for what in of_load]:
            if verdict.passed:  # what was lost is counted; this is what else keeps a client from being current
                verdict.fault(what)
        if tally.unacked:
            verdict.fault(f"{tally.unacked} messages were never acked", tally.unacked)
        self._say("comparing inboxes and presence")
        await check_inboxes(self._deployment, history, accounts, verdict, self._draw)
        await check_presence(self._deployment, self._population.owner, users, self._loads, verdict, self._draw)
        catch_up = catch_ups(self.kills, tally.outages)
        longest = sorted(one.max_s for one in catch_up)
        report = Report(
            clients=plan.clients,
            conversations=plan.conversations,
            events=history.count,
            posted=tally.posted,
            acked=tally.acked,
            deliveries=tally.deliveries,
            reconnects=tally.reconnects,
            recovered=tally.recovered,
            reset=tally.reset,
            spoilt=tally.spoilt,
            pulled=tally.pulled,
            kills=len(self.kills),
            lost=verdict.lost,
            doubled=verdict.doubled,
            wrong=verdict.wrong,
            catch_up_max_s=longest[-1] if longest else 0,
            catch_up_median_s=longest[len(longest) // 2] if longest else 0,
            seconds=round(seconds, 1),
            growth=self._memory.growths(),
            passed=verdict.passed,
        )
        return report, catch_up, verdict, tally

    async def _tally(self) -> Tally:
        whole = Tally()
        for tally in await self._tell("tally"):
            whole.add(tally)
        return whole

    async def _tell(self, command: str, *arguments: Any) -> list[Any]:
        return list(await asyncio.gather(*(load.tell(command, *arguments) for load in self._loads)))


async def soak(plan: Plan, folder: Path, say: Say) -> tuple[Report, list[CatchUp], Verdict, Tally]:
    """Deploy, soak, compare.

    Args:
        folder: for data and logs.
        say: is told how it goes, often.
    """
    say("starting the servers")
    async with deployed(folder) as deployment:
        return await Course(plan, deployment, say).run()
