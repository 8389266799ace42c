"""What happens around the observed clients: steps, as hypothesis draws them or a scenario names them, and their doing.

Mia is observed. Olga is in every group and never leaves, so that there is somebody who may read all of it. What a step
asks may be refused; it may not fail.
"""

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import httpx
import jwt
from hypothesis import strategies as st

from tests.api.conftest import User, message
from tests.oracle.asking import all_events, read_blocks, read_devices, read_inbox, read_profile
from tests.oracle.clients import (
    ForgetfulSocketClient,
    ObservedClient,
    PullingClient,
    SocketClient,
    StreamClient,
    SyncingSocketClient,
)
from tests.oracle.state import Json, stays
from tests.running import Running

Step = tuple[Any, ...]

MIA, OLGA = "mia", "olga"
USERS: Final = (MIA, OLGA, "ben", "cid")
OTHERS: Final = (OLGA, "ben", "cid")
CLIENTS: Final = 5
LONG_AGO, FAR_AHEAD = "2020-02-02T02:02:02.222Z", "2999-09-09T09:09:09.000Z"
REFUSALS: Final = frozenset({403, 404, 409, 422})

user, other = st.sampled_from(USERS), st.sampled_from(OTHERS)
place = st.integers(0, 5)  # of a conversation, among those there are
client = st.integers(0, CLIENTS - 1)

step = st.one_of(
    st.tuples(st.just("direct"), user, user),
    st.tuples(st.just("group"), user, st.lists(user, max_size=3), st.sampled_from(["group", "channel"])),
    st.tuples(st.just("rename"), user, place, st.sampled_from(["Rapids", "Still water"])),
    st.tuples(st.just("open_up"), user, place, st.sampled_from(["members", "admins"])),
    st.tuples(st.just("add"), user, place, user),
    st.tuples(st.just("remove"), user, place, user),
    st.tuples(st.just("add"), st.just(OLGA), place, st.just(MIA)),
    st.tuples(st.just("remove"), st.just(OLGA), place, st.just(MIA)),
    st.tuples(st.just("promote"), user, place, user, st.sampled_from(["admin", "member"])),
    st.tuples(st.just("leave"), user, place),
    st.tuples(st.just("post"), user, place),
    st.tuples(st.just("post"), user, place),
    st.tuples(st.just("burst"), place, st.integers(2, 12)),
    st.tuples(st.just("read"), place, st.integers(0, 3)),
    st.tuples(st.just("own_settings"), place, st.sampled_from([None, LONG_AGO, FAR_AHEAD]), st.booleans()),
    st.tuples(st.just("hide"), place, st.booleans()),
    st.tuples(st.just("profile"), st.sampled_from(["Mia", "Mia M.", None]), st.sampled_from(["tea", "milk"])),
    st.tuples(st.just("block"), other),
    st.tuples(st.just("unblock"), other),
    st.tuples(st.just("register"), st.sampled_from(["phone", "tablet"])),
    st.tuples(st.just("revoke"), st.sampled_from(["phone", "tablet"])),
    st.tuples(st.just("cut"), client),
    st.tuples(st.just("cut"), client),
    st.tuples(st.just("resume"), client),
    st.tuples(st.just("resume"), client),
    st.tuples(st.just("pull"), st.integers(1, 2), st.integers(1, 3), st.integers(0, 4)),
)


@dataclass
class Opened:
    """A conversation there is, and who can always read it."""

    id: str
    witness: User
    last_seq: int = 0


@dataclass
class Story:
    """A world of four users, and the clients of one of them."""

    running: Running
    http: httpx.AsyncClient
    users: dict[str, User]
    clients: list[ObservedClient]
    opened: list[Opened] = field(default_factory=list)
    done: list[Step] = field(default_factory=list)
    reads: "list[asyncio.Task[None]]" = field(default_factory=list)

    @classmethod
    async def begin(cls, running: Running, http: httpx.AsyncClient) -> "Story":
        """Nobody has said anything yet."""
        tag = secrets.token_hex(5)
        users = {name: User(http, f"{name}-{tag}", running.token(f"{name}-{tag}")) for name in USERS}
        mia = users[MIA]
        clients: list[ObservedClient] = [
            SocketClient(mia, running.url),
            ForgetfulSocketClient(mia, running.url),
            SyncingSocketClient(mia, running.url),
            StreamClient(mia, running.url),
            PullingClient(mia),
        ]
        story = cls(running, http, users, clients)
        try:
            for client in clients:
                await client.resume()
        except BaseException:
            await story.end()
            raise
        return story

    async def end(self) -> None:
        """Everybody goes."""
        await asyncio.gather(*self.reads, return_exceptions=True)
        for observed in self.clients:
            await observed.cut()
            if isinstance(observed, StreamClient):
                await observed.close()

    async def do(self, *steps: Step) -> None:
        """One step after the other."""
        for name, *parameters in steps:
            self.done.append((name, *parameters))
            await getattr(self, f"_{name}")(*parameters)

    # -- conversations --------------------------------------------------------------------------------------

    def _at(self, place: int) -> Opened | None:
        return self.opened[place % len(self.opened)] if self.opened else None

    async def _direct(self, actor: str, with_whom: str) -> None:
        if actor != with_whom:
            await self._open(actor, {"kind": "direct", "members": [self.users[with_whom].user_id]}, self.users[actor])

    async def _group(self, actor: str, members: list[str], kind: str) -> None:
        names = [self.users[name].user_id for name in {*members, OLGA}]
        await self._open(actor, {"kind": kind, "members": names, "name": f"A {kind}"}, self.users[OLGA])

    async def _open(self, actor: str, body: Json, witness: User) -> None:
        response = _fine(await self.users[actor].post("/v1/conversations", body))
        if response.status_code == 201:
            self.opened.append(Opened(response.json()["conversation_id"], witness))

    async def _rename(self, actor: str, place: int, name: str) -> None:
        if opened := self._at(place):
            _fine(await self.users[actor].patch(f"/v1/conversations/{opened.id}", {"name": name}))

    async def _open_up(self, actor: str, place: int, who: str) -> None:
        if opened := self._at(place):
            _fine(await self.users[actor].patch(f"/v1/conversations/{opened.id}", {"settings": {"post": who}}))

    async def _change(self, actor: str, place: int, changes: Json) -> None:
        if opened := self._at(place):
            _fine(await self.users[actor].post(f"/v1/conversations/{opened.id}/members", changes))

    async def _add(self, actor: str, place: int, whom: str) -> None:
        await self._change(actor, place, {"add": [self.users[whom].user_id]})

    async def _remove(self, actor: str, place: int, whom: str) -> None:
        if whom != OLGA:
            await self._change(actor, place, {"remove": [self.users[whom].user_id]})

    async def _leave(self, who: str, place: int) -> None:
        await self._remove(who, place, who)

    async def _promote(self, actor: str, place: int, whom: str, role: str) -> None:
        await self._change(actor, place, {"roles": {self.users[whom].user_id: role}})

    # -- messages -------------------------------------------------------------------------------------------

    async def _post(self, actor: str, place: int) -> None:
        if opened := self._at(place):
            path = f"/v1/conversations/{opened.id}/messages"
            response = _fine(await self.users[actor].post(path, message(f"{secrets.token_hex(3)} 🌊\nsays {actor}")))
            if response.is_success:
                opened.last_seq = max(opened.last_seq, response.json()["seq"])

    async def _burst(self, place: int, count: int) -> None:
        """Many at once, here and elsewhere."""
        await asyncio.gather(*(self._post(USERS[i % len(USERS)], place + i % 2) for i in range(count)))

    async def _read(self, place: int, back: int) -> None:
        """In the background: a marker that moved less than a second ago takes its time."""
        if opened := self._at(place):
            path, seq = f"/v1/conversations/{opened.id}/read", max(0, opened.last_seq - back)
            self.reads.append(asyncio.create_task(self._read_on(path, seq)))
            await asyncio.sleep(0)

    async def _read_on(self, path: str, seq: int) -> None:
        _fine(await self.users[MIA].post(path, {"seq": seq}))

    # -- what is Mia's own ----------------------------------------------------------------------------------

    async def _own_settings(self, place: int, muted_until: str | None, pinned: bool) -> None:
        await self._set_own(place, {"muted_until": muted_until, "pinned": pinned})

    async def _hide(self, place: int, hidden: bool) -> None:
        await self._set_own(place, {"hidden": hidden})

    async def _set_own(self, place: int, settings: Json) -> None:
        if opened := self._at(place):
            _fine(await self.users[MIA].patch(f"/v1/conversations/{opened.id}/settings", settings))

    async def _profile(self, display_name: str | None, drinks: str) -> None:
        change = {"display_name": display_name, "attributes": {"drinks": drinks}}
        _fine(await self.users[MIA].patch("/v1/profile", change))

    async def _block(self, whom: str) -> None:
        _fine(await self.users[MIA].request("PUT", f"/v1/blocks/{self.users[whom].user_id}"))

    async def _unblock(self, whom: str) -> None:
        _fine(await self.users[MIA].request("DELETE", f"/v1/blocks/{self.users[whom].user_id}"))

    async def _register(self, device_id: str) -> None:
        """A session of another device of hers comes and goes, with a token of now."""
        mia = self.users[MIA]
        now_s = time.time()
        secret = (self.running.data_dir / "jwt.secret").read_text().strip()
        token = jwt.encode({"sub": mia.user_id, "iat": now_s, "exp": now_s + 600}, secret, algorithm="HS256")
        device = SocketClient(User(self.http, mia.user_id, token), self.running.url)
        device.device_id = device_id
        await device.resume()
        await device.cut()

    async def _revoke(self, device_id: str) -> None:
        _fine(await self.users[MIA].request("DELETE", f"/v1/devices/{device_id}"))

    # -- the clients ----------------------------------------------------------------------------------------

    async def _cut(self, client: int) -> None:
        await self.clients[client].cut()

    async def _resume(self, client: int) -> None:
        await self.clients[client].resume()

    async def _pull(self, pages: int, limit: int, events: int) -> None:
        for observed in self.clients:
            await observed.pull(pages=pages, limit=limit, events=events)

    # -- the oracle -----------------------------------------------------------------------------------------

    async def check(self) -> None:
        """Every client, connected again, has what a fresh one pulls, and was given what it had to be."""
        await asyncio.gather(*self.reads)
        mia = self.users[MIA]
        await asyncio.gather(*(observed.finish() for observed in self.clients))
        inbox, devices, blocks = await read_inbox(mia), await read_devices(mia), await read_blocks(mia)
        profile = await read_profile(mia)
        log = {opened.id: [event async for event in all_events(opened.witness, opened.id)] for opened in self.opened}
        for observed in self.clients:
            await _settle(observed, log, mia.user_id)
            name, lists = type(observed).__name__, (profile, devices, blocks)
            # What is Mia's own may still be on its way.
            await observed.until(partial(observed.holds, inbox, lists))
            assert observed.inbox() == inbox, name
            if observed.notified:
                assert observed.lists() == lists, name
            _check_events(observed, log, inbox)


async def _settle(observed: ObservedClient, log: dict[str, list[Json]], user_id: str) -> None:
    """Wait until a client was given all that it had to be.

    Who was away is told of the membership that ended last and of the one that lasts, not of those that ended before.
    """
    memberships = {id_: stays(events, user_id) for id_, events in log.items()}
    due = {
        id_: {version for stay in (found[-2:] if observed.was_away else found) for version in stay}
        for id_, found in memberships.items()
    }

    def lacking() -> dict[str, set[int]]:
        return {
            id_: versions - set(observed.state.given.get(id_, ()))
            for id_, versions in due.items()
            if id_ not in observed.excused and not versions <= set(observed.state.given.get(id_, ()))
        }

    assert await observed.until(lambda: not lacking()), (type(observed).__name__, "was never given", lacking())
    await observed.fill()


def _check_events(observed: ObservedClient, log: dict[str, list[Json]], inbox: dict[str, Json]) -> None:
    """What it has of its conversations is what there is of them."""
    state, name = observed.state, type(observed).__name__
    assert not state.late, (name, "was given events in the wrong order", state.late)
    if observed.strict:
        assert not state.doubles, (name, "was given events twice", state.doubles)
    for id_ in inbox:
        assert [state.events[id_][version] for version in sorted(state.events[id_])] == log[id_], name
    for id_, had in state.events.items():
        versions = {event["version"]: event for event in log[id_]}
        assert all(versions[version] == event for version, event in had.items()), name
        if id_ not in inbox:
            ended = stays(log[id_], state.user_id)[:-1]
            assert ended, (name, "was given events of a conversation that is not hers")
            assert max(had) <= ended[-1][-1], (name, "was given events from after she was out")


def _fine(response: httpx.Response) -> httpx.Response:
    assert response.is_success or response.status_code in REFUSALS, (response.request.url, response.text)
    return response
