"""What the library asks for recorders, and the settings that it is given: names as in the application's environment,
each also with the application's name before it (`SCHOOL_NATS_URL`).

NATS_URL             nats://[user:password@]host:port, or several, separated by commas
NATS_CREDENTIALS     a file of credentials, where the URL has none
NATS_STREAM          the stream of the application's events; its name, unless given. CONV-<p>, USER-<p>: read-only
NATS_REPLICAS        copies of the streams that are made, 1, 3 or 5; 1
CREATE_STREAM        whether streams are made that are not there; yes
ORIGINATOR_ID_TYPE   uuid or text; uuid, and text in Riverrun's own streams
"""

import re
from typing import Any, Final

from eventsourcing.domain import TAggregateID
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    InfrastructureFactory,
    Mapper,
    NotSupportedError,
    OperationalError,
    ProcessRecorder,
    TrackingRecorder,
    Transcoder,
)
from eventsourcing.utils import Environment, EnvType, strtobool

from streams import subjects
from streams.codec import MessagePackTranscoder
from streams.jetstream.api import NO_STREAM, ApiError, call
from streams.jetstream.connection import Connection
from streams.jetstream.ensure import config_of
from streams.recorders.datastore import JetStreamDatastore
from streams.recorders.recorder import JetStreamAggregateRecorder, JetStreamApplicationRecorder
from streams.recorders.stored import StoredIn
from streams.topology import StreamSpec

EVENTS: Final = "events"  # the purpose of what the application records

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NOT_TRACKED = "these recorders keep no tracking: keep it where the projection is, in one transaction with it"


class Factory(InfrastructureFactory[TrackingRecorder]):
    """One connection, and one stream a purpose: the application's events, its snapshots.

    Raises:
        OSError: a setting is missing, or not what it can be. OperationalError: no server lets us in.
    """

    NATS_URL = "NATS_URL"
    NATS_CREDENTIALS = "NATS_CREDENTIALS"
    NATS_STREAM = "NATS_STREAM"
    NATS_REPLICAS = "NATS_REPLICAS"
    CREATE_STREAM = "CREATE_STREAM"
    ORIGINATOR_ID_TYPE = "ORIGINATOR_ID_TYPE"

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        url = self._setting(self.NATS_URL, "", r"(nats|tls)://.+", "nats://host:port", is_secret=True)
        self._stream = self._setting(
            self.NATS_STREAM, self.env.name, _NAME.pattern, "up to 64 letters, digits, hyphens and underscores"
        )
        if self._stream in (subjects.DEAD, subjects.ARCHIVE):
            raise OSError(f"{self.NATS_STREAM}: {self._stream} is Riverrun's own, and not of aggregates")
        self._is_riverrun = subjects.partition_of(self._stream) is not None
        self._uuids = self._setting(self.ORIGINATOR_ID_TYPE, "uuid", "uuid|text", "uuid or text") == "uuid"
        self._replicas = int(self._setting(self.NATS_REPLICAS, "1", "[135]", "1, 3 or 5"))
        self._makes_streams = bool(strtobool(self._setting(self.CREATE_STREAM, "yes", ".+", "yes or no")))
        credentials = self.env.get(self.NATS_CREDENTIALS)
        self.datastore = JetStreamDatastore(
            url,
            name=f"recorder-{self._stream}",
            **({"user_credentials": credentials} if credentials else {}),
        )

    def _setting(self, name: str, default: str, pattern: str, expected: str, *, is_secret: bool = False) -> str:
        value = self.env.get(name) or default
        if re.fullmatch(pattern, value):
            return value
        found = "" if is_secret or not value else f", not {value!r}"
        raise OSError(f"{' or '.join(self.env.create_keys(name))}: {expected}{found}")

    def mapper(
        self, transcoder: Transcoder | None = None, mapper_class: type[Mapper[TAggregateID]] | None = None
    ) -> Mapper[TAggregateID]:
        """The library's; of Riverrun's own streams always with the transcoder that reads them, since a follower asks
        with its own."""
        if self._is_riverrun:
            transcoder = MessagePackTranscoder()
        return super().mapper(transcoder, mapper_class)

    def aggregate_recorder(self, purpose: str = EVENTS) -> AggregateRecorder:
        """The recorder of a purpose: `events`, or `snapshots`, in a stream of its own.

        Raises:
            OperationalError: the stream cannot be reached or made, or is there for something else.
            NotSupportedError: Riverrun's own streams have events only.
        """
        return JetStreamAggregateRecorder(self.datastore, self._stored_in(purpose))

    def application_recorder(self) -> ApplicationRecorder:
        """The recorder of the application's events. Raises as `aggregate_recorder`."""
        return JetStreamApplicationRecorder(self.datastore, self._stored_in(EVENTS))

    def _stored_in(self, purpose: str) -> StoredIn:
        if self._is_riverrun and purpose != EVENTS:
            raise NotSupportedError(f"{self._stream} is Riverrun's own, and has no {purpose}")
        stream = self._stream if purpose == EVENTS else f"{self._stream}-{purpose}"
        makes = self._makes_streams and not self._is_riverrun
        self.datastore.run(_ensure(self.datastore.connection, stream, self._replicas if makes else 0))
        return StoredIn(stream, uuids=self._uuids and not self._is_riverrun)

    def tracking_recorder(self, tracking_recorder_class: type[TrackingRecorder] | None = None) -> TrackingRecorder:
        """There is none."""
        raise NotSupportedError(_NOT_TRACKED)

    def process_recorder(self) -> ProcessRecorder:
        """There is none."""
        raise NotSupportedError(_NOT_TRACKED)

    def close(self) -> None:
        """Close the connection. Idempotent."""
        if hasattr(self, "datastore"):  # the library closes what it could not make
            self.datastore.close()


async def _ensure(connection: Connection, stream: str, replicas: int) -> None:
    """Have a stream for recorders; `replicas` 0: only look whether it is there."""
    wanted = config_of(
        StreamSpec(name=stream, subjects=(subjects.recorded_subjects(stream),)),
        replicas,
    )
    try:
        config: dict[str, Any] = (await call(connection, f"STREAM.INFO.{stream}"))["config"]
    except ApiError as error:
        if error.err_code != NO_STREAM or not replicas:
            raise
        config = (await call(connection, f"STREAM.CREATE.{stream}", wanted))["config"]
    if subjects.partition_of(stream) is None:
        differs = [key for key in ("subjects", "allow_direct", "allow_atomic") if config.get(key) != wanted[key]]
        if differs:
            raise OperationalError(f"the stream {stream} is there for something else: {', '.join(differs)} differ")
