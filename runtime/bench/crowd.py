"""The users and conversations of a measurement: new ones for each run, so that no run meets another's data."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from runtime.client import HttpClient

MEMBERS_PER_CALL: Final = 1_000  # the protocol's limit, the creator counted

Mint = Callable[[str], str]  # a user id to a token


@dataclass(frozen=True, slots=True)
class Seat:
    """A user's place in a conversation; in `others` as well, for who posts in several by turns."""

    token: str
    conversation_id: str
    others: tuple[str, ...] = ()


async def gather(url: str, mint: Mint, *, users: int, conversations: int) -> list[Seat]:
    """New users, spread evenly over new groups: the seats, user by user.

    Raises:
        ClientError: the server cannot be reached or refuses.
    """
    run = secrets.token_hex(4)
    names = [f"bench-{run}-{number}" for number in range(users)]
    tokens = [mint(name) for name in names]
    ids: list[str] = []
    async with HttpClient(url, tokens[0]) as client:
        for first in range(conversations):
            crew = names[first::conversations]
            created = await client.request(
                "POST",
                "/v1/conversations",
                json={"kind": "group", "name": f"bench {run} {first}", "members": crew[1:MEMBERS_PER_CALL]},
                token=tokens[first],
            )
            ids.append(created["conversation_id"])
            for start in range(MEMBERS_PER_CALL, len(crew), MEMBERS_PER_CALL):
                await client.request(
                    "POST",
                    f"/v1/conversations/{ids[-1]}/members",
                    json={"add": crew[start : start + MEMBERS_PER_CALL], "remove": []},
                    token=tokens[first],
                )
    return [Seat(token, ids[number % conversations]) for number, token in enumerate(tokens)]
