"""The step that rebuilds every read model while people post: by `riverrun rebuild`, and none of them notices."""

import asyncio
import json
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import httpx

from runtime.embedded.child import Account, leashed
from runtime.tokens import mint
from tests.proof.bars import Bar
from tests.proof.outcome import Outcome
from tests.proof.site import Role, Site

POSTERS: Final = ("rebuilder-ann", "rebuilder-bob", "rebuilder-cid")
TOKEN_S: Final = 24 * 3_600
LEAST: Final = 20  # messages that are acked before it begins, and after it has ended
POLL_S: Final = 0.05

_LOADING: Final = re.compile(r"loading: ([\d,]+) of ([\d,]+)")  # as `riverrun rebuild` tells a pipe


class Posting:
    """People who post one message after the other, as fast as they are acked.

    Attributes:
        acked: how many messages were. refused: what else was answered.
    """

    def __init__(self, url: str, secret: str) -> None:
        self.acked = 0
        self.refused: list[str] = []
        self._url = url
        self._secret = secret

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """While the context lasts."""
        async with httpx.AsyncClient(base_url=self._url, timeout=60) as client:
            tasks = [asyncio.create_task(self._post(client, user)) for user in POSTERS]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
                self.refused += [repr(one) for one in ended if not isinstance(one, asyncio.CancelledError)]

    async def more(self, messages: int, role: Role) -> None:
        """Wait until so many more were acked."""
        wanted = self.acked + messages
        while self.acked < wanted and not self.refused:
            role.check()
            await asyncio.sleep(POLL_S)

    async def _post(self, client: httpx.AsyncClient, user: str) -> None:
        token = mint(user, ttl_s=TOKEN_S, admin=False, secret=self._secret)
        headers = {"Authorization": f"Bearer {token}"}
        group = {"kind": "group", "name": user, "members": ["somebody"], "client_conversation_id": "proof"}
        made = (await client.post("/v1/conversations", json=group, headers=headers)).json()
        path, number = f"/v1/conversations/{made['conversation_id']}/messages", 0
        while True:
            number += 1
            message = {"client_msg_id": f"p{number}", "body": {"type": "text", "text": f"message {number}"}}
            answer = await client.post(path, json=message, headers=headers)
            if answer.status_code in (httpx.codes.CREATED, httpx.codes.OK):
                self.acked += 1
            else:
                self.refused.append(f"{answer.status_code} {answer.text[:200]}")


async def rebuild(site: Site, role: Role, bar: Bar) -> Outcome:
    """All read models, beside those in force, compared with them row by row, and put in their place."""
    outcome, posting = Outcome("rebuild"), Posting(role.url, site.secret)
    async with posting.going_on():
        await posting.more(LEAST, role)
        before = posting.acked
        command = (sys.executable, "-m", "runtime.cli", "rebuild", "--json", "--url", role.url)
        process = await asyncio.create_subprocess_exec(
            *leashed(command, Account.current(), signal.SIGKILL),
            cwd=site.folder,  # where there is no data directory of another deployment
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            env=role.environment,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        stdout, said = await asyncio.gather(process.stdout.read(), _followed(process.stderr, bar))
        await process.wait()
        meanwhile = posting.acked - before
        await posting.more(LEAST, role)
    for refused in posting.refused:
        outcome.fault(f"a message was not acked: {refused}")
    if process.returncode:
        outcome.fault(f"riverrun rebuild ended with {process.returncode}: {said[-500:]}")
        return outcome
    told = json.loads(stdout)
    outcome.count = told["events"]
    bar(outcome.count, outcome.count)
    if not (told["equal"] and told["in_force"]):
        outcome.fault(f"the rebuilt read models are not equal, or not in force: {told['differences'][:5]}")
    rows = sum(table["rows"] for table in told["tables"].values())
    outcome.note = f"{rows:,} rows of {len(told['tables'])} tables; {meanwhile:,} messages were posted meanwhile"
    return outcome


async def _followed(stderr: asyncio.StreamReader, bar: Bar) -> str:
    """All that the command says, to its end; what it says of how far it is is shown."""
    said = ""
    async for line in stderr:
        said += line.decode()
        if loading := _LOADING.match(line.decode()):
            bar(*(int(number.replace(",", "")) for number in loading.groups()))
    return said
