"""Follow Riverrun's conversations with the `eventsourcing` library: who has written how much, event-sourced again.

python examples/milestones.py [--data-dir .riverrun] [--every 100] [--database milestones.sqlite]

Stopped and started again it goes on after the last message that it counted: place and count are one transaction.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from uuid import NAMESPACE_URL, UUID, uuid5

from eventsourcing.application import AggregateNotFoundError, Application, ProcessingEvent
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate, DomainEventProtocol, event
from eventsourcing.projection import EventSourcedProjection, EventSourcedProjectionRunner

from domain.events import Event, MessagePosted
from runtime.cli.target import resolve_target


class Chat(Application[str]):
    """Riverrun's conversations, read-only: `repository.get` has any of them, at any version."""


class Author(Aggregate):
    """A user, as far as we care."""

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.messages = 0

    @staticmethod
    def create_id(user_id: str) -> UUID:
        return uuid5(NAMESPACE_URL, f"/authors/{user_id}")

    class Wrote(Aggregate.Event):
        """Once more."""

    @event(Wrote)
    def write(self) -> None:
        self.messages += 1


class Milestones(EventSourcedProjection[UUID]):
    """Authors, in a database of our own."""

    topics = (MessagePosted.TOPIC,)
    every = 100

    @singledispatchmethod
    def policy(self, domain_event: Event, processing_event: ProcessingEvent[UUID]) -> None:
        """What an event of Riverrun's makes us do. Of those we follow there is one kind."""

    @policy.register
    def _(self, posted: MessagePosted, processing_event: ProcessingEvent[UUID]) -> None:
        try:
            author: Author = self.repository.get(Author.create_id(posted.actor_id))
        except AggregateNotFoundError:
            author = Author(posted.actor_id)
        author.write()
        processing_event.collect_events(author)

    def notify(self, new_events: Sequence[DomainEventProtocol[UUID]]) -> None:
        """What has just been stored, together with our place."""
        for stored in new_events:
            if isinstance(stored, Author.Wrote):
                author: Author = self.repository.get(stored.originator_id)
                if author.messages % self.every == 0:
                    print(f"{author.user_id} has written {author.messages} messages", flush=True)


def main(nats_url: str, database: Path) -> None:
    settings = {
        "CHAT_PERSISTENCE_MODULE": "streams.recorders",
        "CHAT_NATS_URL": nats_url,
        "CHAT_NATS_STREAM": "CONV-0",
        "MILESTONES_PERSISTENCE_MODULE": "eventsourcing.sqlite",
        "MILESTONES_SQLITE_DBNAME": str(database),
    }
    with EventSourcedProjectionRunner(application_class=Chat, projection_class=Milestones, env=settings) as runner:
        print(f"following {runner.app.recorder.max_notification_id() or 0} events and those to come", flush=True)
        runner.run_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Follow Riverrun's conversations and count who writes.")
    parser.add_argument("--data-dir", type=Path, default=Path(".riverrun"))
    parser.add_argument("--every", type=int, default=100, help="say it at every so many messages")
    parser.add_argument("--database", type=Path, default=Path("milestones.sqlite"))
    arguments = parser.parse_args()
    Milestones.every = arguments.every
    try:
        main(resolve_target(None, arguments.data_dir).nats_url, arguments.database)
    except KeyboardInterrupt:
        print("stopped", flush=True)
