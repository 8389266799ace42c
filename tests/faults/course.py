"""The course of a case: conversations made, clients connected, load, faults, quiet, and the verdict."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from projections.verification import verify
from runtime.client import ClientError, HttpClient, Retry
from streams import subjects
from streams.codec import decode
from streams.jetstream import JetStream
from tests.faults import poison
from tests.faults.availability import accepted_after, outages
from tests.faults.check import ABOUT, MODELS, About, check_folder
from tests.faults.crowd import EVERY_S, Crowd
from tests.faults.load import Load
from tests.faults.population import Made, populate
from tests.faults.readings import Entry, Message, Models
from tests.faults.recording import ATTEMPTS, LOG, Attempt, Recorder, digest_of, read
from tests.faults.repeats import Repeats
from tests.faults.schedule import Case, Step
from tests.faults.site import Site
from tests.faults.verdict import Verdict

STEADY_S: Final = 2.0  # of load before anything is done
AFTER_S: Final = 6.0  # of load after the last fault
ACKS_S: Final = 25.0  # for what is under way when nothing new is posted
CONNECT_S: Final = 60.0
MAKE_S: Final = 60.0
SETTLE_S: Final = 60.0  # for the last client to have everything: several audits
VERIFY_S: Final = 60.0
INBOX_S: Final = 30.0
PAGE: Final = 200

Say = Callable[[str], None]


@dataclass
class Result:
    """A case's row.

    Attributes:
        hit: what was done, in words, with whom it hit.
        unavailable_s: of the partition that was longest without an ack, from the first fault on.
        again_s: from the end of the last fault to an ack in each partition.
        codes: of the attempts that were not acked, and what else went wrong for clients, in words.
    """

    case: str
    seed: int
    verdict: Verdict
    seconds: float
    unavailable_s: float
    again_s: float
    shed: int
    hit: list[str] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "case": self.case,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "unavailable_s": round(self.unavailable_s, 2),
            "again_s": round(self.again_s, 2),
            "shed": self.shed,
            "hit": self.hit,
            "codes": dict(self.codes),
            **self.verdict.as_dict(),
        }


class Course:
    """One case on a site.

    Args:
        rate: messages a second.
        folder: of the recording.
    """

    def __init__(self, case: Case, site: Site, folder: Path, *, seed: int, scale: float, rate: float, say: Say) -> None:
        self.case = case
        self.site = site
        self.folder = folder
        self.seed = seed
        self.recorder = Recorder(folder)
        self.conversations: list[Made] = []
        self.load: Load
        self._scale = scale
        self._rate = rate
        self._say = say
        self._partitions = site.settings.partitions
        self._draw = random.Random(f"{seed}/{case.name}/course")
        self._repeats: Repeats | None = None
        self._crowd: Crowd | None = None

    async def run(self) -> Result:
        """Everything, from the first conversation to the verdict."""
        try:
            return await self._run()
        finally:
            if self._crowd is not None:
                await self._crowd.end()

    async def _run(self) -> Result:
        self.conversations = await self._make()
        self.load = Load(
            self.conversations,
            self.site.gateway_urls,
            self.site.token,
            self.recorder,
            rate=self._rate,
            draw=random.Random(f"{self.seed}/{self.case.name}/load"),
        )
        self.site.moved = self.load.move
        await self.load.connect(CONNECT_S)
        self.load.begin()
        began_s = time.monotonic()
        await asyncio.sleep(STEADY_S)
        fault_s = time.monotonic()
        hit = await self._disturb()
        healed_s = time.monotonic()
        await asyncio.sleep(AFTER_S)
        ended_s = time.monotonic()
        self._say(f"{self.case.name}: quiet")
        await self.load.end(ACKS_S)
        await self._write_log()
        if not await self.load.settled(self._targets(), SETTLE_S):
            self._say(f"{self.case.name}: some clients do not come to have everything")
        await self._write_models()
        await self.load.close()
        self.recorder.close()
        known = {made.conversation_id: made.version for made in self.conversations}
        about = About(self.case.name, self.seed, known, self.site.planted)
        (self.folder / ABOUT).write_bytes(msgspec.json.encode(about))
        partitions = {made.conversation_id: made.partition for made in self.conversations}
        attempts = list(read(self.folder, ATTEMPTS, Attempt))
        return Result(
            self.case.name,
            self.seed,
            await asyncio.to_thread(check_folder, self.folder),
            seconds=ended_s - began_s,
            unavailable_s=max(outages(attempts, partitions, from_s=fault_s, until_s=ended_s).values()),
            again_s=max(accepted_after(attempts, partitions, from_s=healed_s).values()),
            shed=self.load.shed,
            hit=hit,
            codes=self.load.codes + self.load.tally.errors,
        )

    # -- the beginning --------------------------------------------------------------------------------------

    async def _make(self) -> list[Made]:
        async def make(made: Made) -> Made:
            creator, *others = made.members
            async with HttpClient(self.site.gateway_urls[0], self.site.token(creator)) as client:
                view = await Retry(for_s=MAKE_S)(
                    lambda: client.create_conversation(
                        "group", others, name=made.name, client_conversation_id=made.name
                    )
                )
            return msgspec.structs.replace(made, conversation_id=view["conversation_id"], version=view["version"])

        planned = populate(self.case.name, self.seed, partitions=self._partitions)
        return list(await asyncio.gather(*map(make, planned)))

    # -- the middle -----------------------------------------------------------------------------------------

    async def _disturb(self) -> list[str]:
        hit = []
        for step in self.case.schedule(self.seed, scale=self._scale, partitions=self._partitions):
            self._say(f"{self.case.name}: {step}")
            await asyncio.sleep(step.after_s)
            whom = await self._do(step)
            hit.append(f"{step}" + (f" ({whom})" if whom != step.whom else ""))
        return hit

    async def _do(self, step: Step) -> str:
        """A fault of the deployment is the site's; what needs the load is here. Who was hit."""
        match step.what:
            case "fill a conversation" | "send twins" | "send again":
                if self._repeats is None:
                    self._repeats = Repeats(self.load, self.conversations[0], self._draw)
                repeats = self._repeats
                work = {"fill a conversation": repeats.fill, "send twins": repeats.twins, "send again": repeats.again}
                await work[step.what]()
            case "send again without":
                assert self._repeats is not None
                await asyncio.gather(self._repeats.again(), self.site.do(replace(step, what="stop")))
            case "refuse a message":
                await poison.refuse(self.site, self.load, self.conversations[0])
            case "garble a partition":
                await poison.garble(self.site, int(step.whom))
            case "replay":
                await poison.replay(self.site)
            case "gather a crowd of":
                self._crowd = Crowd(self.case.name, int(step.whom), self.site.gateway_urls, self.site.token)
                self.conversations.append(await self._crowd.gather(self._partitions))
                self._living = asyncio.create_task(self._post_to(self._crowd))
            case "wait for the crowd":
                await self._await_crowd()
            case "dismiss the crowd":
                await self._dismiss_crowd()
            case _:
                return await self.site.do(step)
        return step.whom

    async def _post_to(self, crowd: Crowd) -> None:
        """Say something to all of them, every second."""
        owner = self.load.outsider(crowd.owner)
        while True:
            self.load.by_http(self.load.message(owner, crowd.conversation_id, "to all"))
            await asyncio.sleep(EVERY_S)

    async def _await_crowd(self) -> None:
        """Wait until all of the crowd have what there is."""
        assert self._crowd is not None
        async with HttpClient(self.site.gateway_urls[-1], self.site.token(self._crowd.owner)) as client:
            crowd = self._crowd
            view = await Retry(for_s=MAKE_S)(lambda: client.conversation(crowd.conversation_id))
        lacking = await self._crowd.settled(view["version"])
        if lacking:
            self._say(f"{self.case.name}: {len(lacking)} of the crowd do not come to have everything: {lacking[:3]}")

    async def _dismiss_crowd(self) -> None:
        assert self._crowd is not None
        self._living.cancel()
        await asyncio.gather(self._living, return_exceptions=True)
        await asyncio.sleep(EVERY_S)  # what was posted last may still be under way
        await self._await_crowd()
        await self._crowd.dismiss(self.recorder)

    # -- the end --------------------------------------------------------------------------------------------

    async def _write_log(self) -> None:
        """The log of the case's conversations, from their first event."""
        ids = {made.conversation_id for made in self.conversations}
        self._versions: dict[str, int] = dict.fromkeys(ids, 0)
        jetstream = await JetStream.connect(self.site.settings.nats_url, name="faults")
        try:
            for made in self.conversations:
                stream = subjects.stream(subjects.CONV, made.partition)
                subject = subjects.aggregate(subjects.CONV, made.partition, made.conversation_id)
                async for delivery in jetstream.log.read(stream, subject=subject):
                    self.recorder.write(LOG, delivery)
                    self._versions[made.conversation_id] = decode(delivery).originator_version
        finally:
            await jetstream.close()

    def _targets(self) -> dict[str, dict[str, int]]:
        targets: dict[str, dict[str, int]] = {}
        for made in self.conversations:
            for user_id in made.members:
                targets.setdefault(user_id, {})[made.conversation_id] = self._versions[made.conversation_id]
        return targets

    async def _write_models(self) -> None:
        settings = self.site.settings
        jetstream = await JetStream.connect(settings.nats_url, name="faults")
        try:
            report = await verify(jetstream.log, settings.postgres_url, partitions=self._partitions, wait_s=VERIFY_S)
        finally:
            await jetstream.close()
        members = {made.conversation_id: made.members for made in self.conversations}
        users = sorted({user_id for of_one in members.values() for user_id in of_one})
        models = Models(
            [str(difference) for difference in report.differences],
            {made.conversation_id: await self._history(made) for made in self.conversations},
            {user_id: await self._inbox(user_id) for user_id in users},
            members,
        )
        (self.folder / MODELS).write_bytes(msgspec.json.encode(models))

    def _client(self, user_id: str) -> HttpClient:
        urls = self.site.gateway_urls
        return HttpClient(urls[len(user_id) % len(urls)], self.site.token(user_id))

    async def _history(self, made: Made) -> list[Message]:
        messages: list[Message] = []
        async with self._client(made.members[-1]) as client:
            while True:
                after = messages[-1].seq if messages else 0
                page = await Retry(for_s=INBOX_S)(
                    lambda after=after: client.history(  # type: ignore[misc]
                        made.conversation_id,
                        after=after,
                        limit=PAGE,
                        min_version=self._versions[made.conversation_id],
                    )
                )
                messages += [_message(one) for one in page["messages"]]
                if not page["has_more"]:
                    return messages

    async def _inbox(self, user_id: str) -> list[Entry]:
        """A user's inbox, read until it is as new as the log: the hot store trails the read models by moments."""
        entries: list[Entry] = []
        give_up_s = time.monotonic() + INBOX_S
        async with self._client(user_id) as client:
            while True:
                try:
                    entries = await self._pages(client)
                except ClientError:
                    if time.monotonic() > give_up_s:
                        raise
                if all(entry.version >= self._versions.get(entry.conversation, 0) for entry in entries) and entries:
                    return entries
                if time.monotonic() > give_up_s:
                    return entries
                await asyncio.sleep(0.1)

    async def _pages(self, client: HttpClient) -> list[Entry]:
        entries: list[Entry] = []
        page: str | None = None
        while True:
            answer = await client.request("GET", "/v1/inbox", query={"limit": PAGE, "page": page})
            entries += [_entry(one) for one in answer["conversations"] if one["conversation_id"] in self._versions]
            if (page := answer["page"]) is None:
                return entries


def _message(found: dict[str, Any]) -> Message:
    text = digest_of(found["body"]["text"].encode())
    who = (found["sender_id"], found["client_msg_id"])
    return Message(found["seq"], found["version"], found["message_id"], *who, text)


def _entry(found: dict[str, Any]) -> Entry:
    last = found["last_message"]
    return Entry(found["conversation_id"], found["version"], found["last_seq"], last and last["message_id"])


def planned(cases: Sequence[Case], *, seed: int, scale: float, partitions: int) -> dict[str, list[Step]]:
    """The whole schedule, to be printed before anything is done."""
    return {case.name: case.schedule(seed, scale=scale, partitions=partitions) for case in cases}
