"""Riverrun's own streams, read and followed by applications written with the `eventsourcing` library."""

import asyncio
from collections.abc import AsyncIterator
from uuid import NAMESPACE_URL, UUID, uuid5

import pytest
from eventsourcing.application import AggregateNotFoundError, Application, ProcessingEvent
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import OperationalError
from eventsourcing.system import Follower, SingleThreadedRunner, System

from domain.conversations import Conversation
from domain.events import Event, MessagePosted, ProfileUpdated
from runtime.embedded.nats import NatsServer
from streams.jetstream import JetStream
from streams.topology import Topology
from tests.projections.history import STREAM, USERS, History, UserHistory


class Chat(Application[str]):
    """Riverrun's conversations."""


class Ledger(Aggregate):
    """What a follower makes of them."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    @staticmethod
    def create_id() -> UUID:
        return uuid5(NAMESPACE_URL, "/ledger")

    @event("Noted")
    def note(self, text: str) -> None:
        self.texts.append(text)


class Notes(Follower[UUID]):
    """A follower of the library's, with a database of its own."""

    topics = (MessagePosted.TOPIC,)

    def policy(self, domain_event: Event, processing_event: ProcessingEvent[UUID]) -> None:
        assert isinstance(domain_event, MessagePosted)
        try:
            ledger: Ledger = self.repository.get(Ledger.create_id())
        except AggregateNotFoundError:
            ledger = Ledger()
        ledger.note(domain_event.body["text"])
        processing_event.collect_events(ledger)


@pytest.fixture
async def history(jetstream: JetStream) -> History:
    """A conversation of three messages, renamed in between."""
    await jetstream.log.ensure(Topology())
    history = History(jetstream.log)
    conversation = history.create("ann", "bob", name="Köln")
    for text in ("one", "two"):
        history.post(conversation, "ann", text)
    history.rename(conversation, "ann", "Bonn")
    history.post(conversation, "bob", "three")
    await history.append()
    return history


@pytest.fixture
async def chat(nats: NatsServer, history: History) -> AsyncIterator[Chat]:
    settings = {"PERSISTENCE_MODULE": "streams.recorders", "NATS_URL": nats.url, "NATS_STREAM": STREAM}
    chat = Chat(settings)
    yield chat
    chat.close()


def test_a_repository_has_every_conversation_at_every_version(chat: Chat, history: History) -> None:
    stored = history.conversations[0]
    conversation: Conversation = chat.repository.get(str(stored.id))
    assert conversation.state() == stored.state()
    before: Conversation = chat.repository.get(str(stored.id), version=3)
    assert (before.name, before.last_seq) == ("Köln", 2)
    with pytest.raises(AggregateNotFoundError):
        chat.repository.get("404")


async def test_users_are_found_by_their_ids(nats: NatsServer, history: History) -> None:
    users = UserHistory(history.log)
    users.happened("an.n*", ProfileUpdated, display_name="Ann", avatar_url=None, attributes={})
    await users.append()
    people = Application[str]({"PERSISTENCE_MODULE": "streams.recorders", "NATS_URL": nats.url, "NATS_STREAM": USERS})
    assert [one.originator_id for one in people.recorder.select_events("an.n*")] == ["an.n*", "an.n*"]
    assert people.repository.get("an.n*").version == 2
    people.close()


def test_a_system_has_a_follower_that_pulls(nats: NatsServer, history: History) -> None:
    settings = {"CHAT_PERSISTENCE_MODULE": "streams.recorders", "CHAT_NATS_URL": nats.url, "CHAT_NATS_STREAM": STREAM}
    with SingleThreadedRunner[UUID](System([[Chat, Notes]]), settings) as runner:
        notes = runner.get(Notes)
        for _ in range(2):
            notes.pull_and_process("Chat")
        ledger: Ledger = notes.repository.get(Ledger.create_id())
        assert ledger.texts == ["one", "two", "three"]
        assert notes.recorder.max_tracking_id("Chat") == 5


async def test_a_subscription_hears_what_riverrun_stores_next(chat: Chat, history: History) -> None:
    with chat.recorder.subscribe(gt=3, topics=[MessagePosted.TOPIC]) as subscription:
        assert next(subscription).id == 5
        waiting = asyncio.create_task(asyncio.to_thread(next, subscription))
        history.rename(history.conversations[0], "ann", "Aachen")
        history.post(history.conversations[0], "bob", "four")
        await history.append()
        heard = chat.mapper.to_domain_event(await waiting)
    assert isinstance(heard, MessagePosted)
    assert heard.body["text"] == "four"


async def test_a_conversation_that_begins_in_the_archive_is_not_made_up_of_its_end(
    chat: Chat, history: History
) -> None:
    await history.log.trim(STREAM, 2)
    whole = history.create("cid", "dan")
    await history.append()
    for lost in (str(history.conversations[0].id), "404"):
        with pytest.raises(OperationalError, match="trimmed"):
            await asyncio.to_thread(chat.repository.get, lost)
    assert (await asyncio.to_thread(chat.repository.get, str(whole.id))).version == 1
