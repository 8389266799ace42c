"""Recorders of the `eventsourcing` library where its own suites do not look: races, crashes, and what is refused."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from threading import Event, Thread
from uuid import uuid4

import pytest
from eventsourcing.persistence import (
    ApplicationRecorder,
    DataError,
    IntegrityError,
    InterfaceError,
    Notification,
    NotSupportedError,
    OperationalError,
    StoredEvent,
)
from eventsourcing.utils import Environment

from runtime.embedded.nats import NatsServer
from streams.jetstream import JetStream, publisher
from streams.jetstream.api import call
from streams.jetstream.connection import Connection
from streams.ports import BATCH_MAX
from streams.recorders import Factory, datastore
from streams.topology import Topology
from tests.conftest import NatsServerFactory
from tests.streams.conftest import freeze, until

STREAM = "School"


def factory_of(nats: NatsServer, **settings: str) -> Factory:
    return Factory(Environment(STREAM, {"NATS_URL": nats.url, "ORIGINATOR_ID_TYPE": "text", **settings}))


@pytest.fixture
def recorder(nats: NatsServer) -> Iterator[ApplicationRecorder]:
    with factory_of(nats) as factory:
        yield factory.application_recorder()


@pytest.fixture
async def server(nats_server: NatsServerFactory) -> NatsServer:
    """A server of the test's own, started again when it is killed."""
    return await nats_server()


@pytest.fixture
async def crashing(server: NatsServer) -> AsyncIterator[ApplicationRecorder]:
    """A recorder on it."""
    factory = await asyncio.to_thread(factory_of, server)
    yield await asyncio.to_thread(factory.application_recorder)
    await asyncio.to_thread(factory.close)


def event(originator: str, version: int, state: bytes = b"") -> StoredEvent:
    return StoredEvent(originator, version, "happened", state)


def versions(recorder: ApplicationRecorder, originator: str, **bounds: bool) -> list[int]:
    return [stored.originator_version for stored in recorder.select_events(originator, **bounds)]


def notifications(recorder: ApplicationRecorder) -> list[Notification]:
    return list(recorder.select_notifications(None, 100_000))


# -- inserting ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_conflict_in_one_aggregate_stores_nothing_of_the_others(nats: NatsServer, place: int) -> None:
    """The conflict is of another's making, so it is the server that finds it, wherever it is in the batch."""
    with factory_of(nats) as one, factory_of(nats) as other:
        recorder = one.application_recorder()
        recorder.insert_events([event("a", 1), event("b", 1), event("c", 1)])
        other.application_recorder().insert_events([event("abc"[place], 2)])
        with pytest.raises(IntegrityError):
            recorder.insert_events([event("a", 2), event("b", 2), event("c", 2)])
        assert len(notifications(recorder)) == 4
        left = [event(name, 2) for name in "abc" if name != "abc"[place]]
        assert recorder.insert_events(left) == [5, 6]


def test_of_those_who_insert_the_same_version_one_wins(nats: NatsServer) -> None:
    """Through two connections, each of which supposes that it knows where the aggregates end."""
    outcomes: list[Sequence[int] | IntegrityError | None] = []

    def insert(recorder: ApplicationRecorder, start: Event, *events: StoredEvent) -> None:
        start.wait()
        try:
            outcomes.append(recorder.insert_events(events))
        except IntegrityError as error:
            outcomes.append(error)

    with factory_of(nats) as one, factory_of(nats) as other:
        recorders = [one.application_recorder(), other.application_recorder()]
        for version in range(1, 21):
            start = Event()
            pairs = [[event("shared", version), event(f"own-{number}", version)] for number in range(len(recorders))]
            threads = [
                Thread(target=insert, args=(recorder, start, *pair))
                for recorder, pair in zip(recorders, pairs, strict=True)
            ]
            for thread in threads:
                thread.start()
            start.set()
            for thread in threads:
                thread.join()
        assert sum(isinstance(outcome, IntegrityError) for outcome in outcomes) == 20
        assert versions(recorders[0], "shared") == list(range(1, 21))
        own = [stored for stored in notifications(recorders[0]) if stored.originator_id != "shared"]
        assert sorted(stored.originator_version for stored in own) == list(range(1, 21))


def test_versions_may_come_in_any_order_and_each_once(recorder: ApplicationRecorder) -> None:
    for version in (5, 2, 9, 0):
        recorder.insert_events([event("a", version)])
    for version in (9, 5, 2, 0):
        with pytest.raises(IntegrityError):
            recorder.insert_events([event("a", version)])
    recorder.insert_events([event("a", 4), event("a", 3)])
    assert versions(recorder, "a") == [0, 2, 3, 4, 5, 9]
    assert versions(recorder, "a", desc=True) == [9, 5, 4, 3, 2, 0]
    assert [stored.originator_version for stored in recorder.select_events("a", gt=2, lte=5, limit=2)] == [3, 4]


def test_what_is_over_the_limits_is_refused_whole(recorder: ApplicationRecorder) -> None:
    for refused in (
        [event("a", version) for version in range(BATCH_MAX + 1)],
        [event("a", 1), event("a", 2, b"x" * (1 << 20))],
        [event("a" * 1_100, 1)],
        [event("", 1)],
        [event("a", -1)],
        [StoredEvent("a", 1, "", b"")],
        [StoredEvent("a", 1, "two\r\nlines", b"")],
    ):
        with pytest.raises(DataError):
            recorder.insert_events(refused)
    assert recorder.max_notification_id() is None
    assert recorder.insert_events([event("a", version) for version in range(BATCH_MAX)]) == list(range(1, 1_001))


async def test_an_insert_whose_answer_does_not_come_is_stored_once(
    server: NatsServer, crashing: ApplicationRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(crashing.insert_events, [event("a", 1), event("b", 1)])
    monkeypatch.setattr(publisher, "APPEND_S", 0.1)  # and it is tried again, and again
    assert server.child.pid is not None
    await freeze(server)
    inserting = [
        asyncio.create_task(asyncio.to_thread(crashing.insert_events, [event("a", version), event("b", version)]))
        for version in (2, 3)
    ]
    done, _ = await asyncio.wait(inserting, timeout=0.5)
    assert not done
    os.kill(server.child.pid, signal.SIGCONT)
    answers = await asyncio.gather(*inserting)
    assert sorted(sequence for answer in answers for sequence in answer or ()) == [3, 4, 5, 6]
    stored = await asyncio.to_thread(notifications, crashing)
    assert sorted((one.originator_id, one.originator_version) for one in stored) == [
        (originator, version) for originator in ("a", "b") for version in (1, 2, 3)
    ]
    for answer, version in zip(answers, (2, 3), strict=True):
        assert [one.id for one in stored if one.originator_version == version] == answer


async def test_inserts_and_a_follower_go_on_through_kill_9(server: NatsServer, crashing: ApplicationRecorder) -> None:
    count = 300
    seen: list[Notification] = []

    def follow() -> None:
        with crashing.subscribe() as subscription:
            for notification in subscription:
                seen.append(notification)
                if len(seen) == count:
                    return

    def insert() -> None:
        for version in range(1, count + 1):
            while True:
                try:
                    crashing.insert_events([event("a", version)])
                    break
                except OperationalError:  # not connected: nothing was stored
                    continue

    following = asyncio.create_task(asyncio.to_thread(follow))
    inserting = asyncio.create_task(asyncio.to_thread(insert))
    for crash in (50, 150):
        await until(lambda crash=crash: len(seen) >= crash, timeout_s=20)  # type: ignore[misc]
        assert server.child.pid is not None
        os.kill(server.child.pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        await asyncio.gather(following, inserting)
    assert [(one.id, one.originator_version) for one in seen] == [(number, number) for number in range(1, count + 1)]


# -- following ----------------------------------------------------------------------------------------------


def test_a_subscription_that_waits_is_stopped_from_another_thread(recorder: ApplicationRecorder) -> None:
    subscription = recorder.subscribe()
    waiting = Thread(target=lambda: list(subscription))
    waiting.start()
    subscription.stop()
    waiting.join(timeout=10)
    assert not waiting.is_alive()


def test_closing_ends_what_waits_and_is_said_to_who_comes_later(nats: NatsServer) -> None:
    factory = factory_of(nats)
    recorder = factory.application_recorder()
    subscription = recorder.subscribe()
    raised: list[BaseException] = []

    def follow() -> None:
        try:
            next(subscription)
        except InterfaceError as error:
            raised.append(error)

    waiting = Thread(target=follow)
    waiting.start()
    factory.close()
    factory.close()
    waiting.join(timeout=10)
    assert len(raised) == 1
    with pytest.raises(InterfaceError):
        recorder.insert_events([event("a", 1)])
    with pytest.raises(StopIteration):
        next(subscription)
    subscription.stop()


async def test_what_was_purged_is_not_passed_over(nats: NatsServer) -> None:
    connection = await Connection.open(nats.url, name="purger", timeout_s=5)
    with factory_of(nats) as factory:
        recorder = factory.application_recorder()
        recorder.insert_events([event("a", version) for version in range(1, 11)])
        await call(connection, f"STREAM.PURGE.{STREAM}", {"seq": 5})
        await connection.close()
        for start in (None, 1, 4):
            with pytest.raises(OperationalError, match="trimmed"):
                recorder.select_notifications(start, 10)
        with pytest.raises(OperationalError, match="trimmed"):
            recorder.subscribe(gt=3)
        assert [one.id for one in recorder.select_notifications(5, 10)] == [5, 6, 7, 8, 9, 10]
        with recorder.subscribe(gt=4) as subscription:
            assert next(subscription).id == 5


# -- what it is made with -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"NATS_URL": ""}, "NATS_URL"),
        ({"NATS_URL": "http://host"}, "NATS_URL"),
        ({"NATS_STREAM": "a.b"}, "NATS_STREAM"),
        ({"NATS_STREAM": "DEAD"}, "NATS_STREAM"),
        ({"NATS_REPLICAS": "2"}, "NATS_REPLICAS"),
        ({"ORIGINATOR_ID_TYPE": "int"}, "ORIGINATOR_ID_TYPE"),
    ],
)
def test_a_setting_that_cannot_be_is_named(nats: NatsServer, settings: dict[str, str], said: str) -> None:
    with pytest.raises(OSError, match=said):
        factory_of(nats, **settings)


def test_a_server_that_does_not_let_us_in_is_said_without_the_password(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datastore, "CONNECT_S", 0.2)
    with pytest.raises(OperationalError) as raised:
        factory_of(nats, NATS_URL=nats.url.replace("riverrun:", "riverrun:secret-"))
    assert "secret-" not in str(raised.value)


async def test_a_stream_that_is_there_for_something_else_is_left_alone(nats: NatsServer, jetstream: JetStream) -> None:
    with factory_of(nats) as factory:
        factory.application_recorder()
    with (
        factory_of(nats, NATS_STREAM="Other", CREATE_STREAM="no") as factory,
        pytest.raises(OperationalError, match="not found"),
    ):
        factory.application_recorder()
    await jetstream.nodes.ensure(1)  # a bucket's stream
    with factory_of(nats, NATS_STREAM="KV_NODES") as factory, pytest.raises(OperationalError, match="something else"):
        factory.application_recorder()


async def test_nobody_but_its_writer_appends_to_a_stream_of_riverrun(nats: NatsServer, jetstream: JetStream) -> None:
    with factory_of(nats, NATS_STREAM="CONV-0") as factory:
        with pytest.raises(OperationalError, match="not found"):
            factory.application_recorder()  # it makes none
        await jetstream.log.ensure(Topology())
        with pytest.raises(NotSupportedError):
            factory.application_recorder().insert_events([event("7", 1)])
        with pytest.raises(NotSupportedError):
            factory.aggregate_recorder(purpose="snapshots")


def test_tracking_is_refused_and_never_left_out(nats: NatsServer) -> None:
    with factory_of(nats) as factory:
        for make in (factory.tracking_recorder, factory.process_recorder):
            with pytest.raises(NotSupportedError):
                make()
        with pytest.raises(NotSupportedError):
            factory.application_recorder().insert_events([event("a", 1)], tracking=object())


def test_ids_that_are_no_uuids_are_refused_where_ids_are_uuids(nats: NatsServer) -> None:
    with factory_of(nats, ORIGINATOR_ID_TYPE="uuid") as factory:
        recorder = factory.application_recorder()
        with pytest.raises(DataError):
            recorder.insert_events([event("a", 1)])
        originator = uuid4()
        recorder.insert_events([StoredEvent(originator, 1, "happened", b"")])
        assert recorder.select_events(str(originator).upper())[0].originator_id == originator
