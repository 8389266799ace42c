"""The recorders: the library's interfaces over one stream each."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    Notification,
    NotSupportedError,
    StoredEvent,
    Subscription,
)

from streams.jetstream.log import JetStreamLog
from streams.jetstream.nodes import JetStreamNodes
from streams.jetstream.publisher import Publisher
from streams.recorders.datastore import JetStreamDatastore
from streams.recorders.following import JetStreamSubscription
from streams.recorders.inserting import Inserting
from streams.recorders.selecting import Selecting
from streams.recorders.stored import StoredIn
from streams.recorders.tails import Tails


class JetStreamAggregateRecorder(AggregateRecorder):
    """Events of aggregates; versions may come in any order. For any number of threads.

    Raises (all methods):
        OperationalError: the log cannot be reached, or did not answer. DataError: what was given cannot be stored, or
        what is stored is no event. InterfaceError: the datastore is closed.
    """

    def __init__(self, datastore: JetStreamDatastore, stored_in: StoredIn) -> None:
        self._datastore = datastore
        self._in = stored_in
        tails = Tails()
        log = JetStreamLog(datastore.connection, JetStreamNodes(datastore.connection))
        self._selecting = Selecting(log, datastore.connection, stored_in, tails)
        self._inserting = Inserting(log, Publisher(datastore.connection), stored_in, tails)

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Store up to 1,000 events durably, all or none. When no answer comes, what became of it is found out.

        Raises:
            IntegrityError: a version of an aggregate is stored already. NotSupportedError: read-only; or `tracking`.
        """
        self._insert(stored_events, **kwargs)
        return None

    def _insert(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> list[int]:
        if self._in.is_riverrun:
            raise NotSupportedError(f"{self._in.stream} is read-only: only its partition's writer appends to it")
        if kwargs.get("tracking") is not None:
            raise NotSupportedError("these recorders keep no tracking: keep it where the projection is")
        return self._datastore.run(self._inserting.insert(stored_events))

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Events of an aggregate, everything included that was stored when this was called.

        Raises:
            OperationalError: also when they begin, or may have been, in what a stream of Riverrun's was trimmed of.
        """
        return self._datastore.run(self._selecting.events(originator_id, gt=gt, lte=lte, desc=desc, limit=limit))


class JetStreamApplicationRecorder(JetStreamAggregateRecorder, ApplicationRecorder):
    """Also their common order. A notification's id is its sequence in the stream: from 1, with no hole."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """As of aggregates; the ids of the notifications."""
        return self._insert(stored_events, **kwargs)

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """See the library. In a cluster the newest may come a moment later; none is left out that a later one follows.

        Raises:
            OperationalError: also when the stream was trimmed beyond the start.
        """
        after = 0 if start is None else max(0, start - 1 if inclusive_of_start else start)
        return self._datastore.run(self._selecting.notifications(after=after, limit=limit, stop=stop, topics=topics))

    def max_notification_id(self) -> int | None:
        """The newest notification's id; `None` where there was never one."""
        return self._datastore.run(self._selecting.last_sequence()) or None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        """Follow the stream, through restarts of the server too. An iteration can be stopped from another thread."""
        return JetStreamSubscription(
            self,
            datastore=self._datastore,
            selecting=self._selecting,
            stored_in=self._in,
            gt=gt,
            topics=topics,
        )
