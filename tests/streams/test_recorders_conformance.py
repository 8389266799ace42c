"""The `eventsourcing` library's own suites for recorders, on the real server."""

from collections.abc import Iterator
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest
from eventsourcing.persistence import AggregateRecorder, ApplicationRecorder
from eventsourcing.tests import application, persistence, projection  # modules: pytest would run the cases themselves
from eventsourcing.utils import Environment

from runtime.embedded.nats import NatsServer
from streams.recorders import Factory


class OnJetStream:
    """An empty server, and an application's recorders on it."""

    ids: ClassVar[str] = "uuid"
    factory: Factory

    @pytest.fixture(autouse=True)
    def _factory(self, nats: NatsServer) -> Iterator[None]:
        settings = {"NATS_URL": nats.url, "ORIGINATOR_ID_TYPE": self.ids}
        self.factory = Factory(Environment("Conformance", settings))
        yield
        self.factory.close()


class OfTexts:
    """Ids that are strings, as unfriendly to subjects as strings can be."""

    ids: ClassVar[str] = "text"

    def new_originator_id(self) -> UUID | str:
        return f"course.of * > nature/é%2E \N{WATER WAVE}.{uuid4()}"


class TestAggregateRecorder(OnJetStream, persistence.AggregateRecorderTestCase):
    def create_recorder(self) -> AggregateRecorder:
        return self.factory.aggregate_recorder()


class TestAggregateRecorderOfTexts(OfTexts, TestAggregateRecorder):
    pass


class TestApplicationRecorder(OnJetStream, persistence.ApplicationRecorderTestCase[ApplicationRecorder]):
    def create_recorder(self) -> ApplicationRecorder:
        return self.factory.application_recorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestApplicationRecorderOfTexts(OfTexts, TestApplicationRecorder):
    pass


class TestNonInterleavingNotificationIDs(OnJetStream, persistence.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> ApplicationRecorder:
        return self.factory.application_recorder()


class TestExampleApplication(application.ExampleApplicationTestCase):
    expected_factory_topic = "streams.recorders.factory:Factory"

    @pytest.fixture(autouse=True)
    def _environment(self, nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PERSISTENCE_MODULE", "streams.recorders")
        monkeypatch.setenv("NATS_URL", nats.url)


class TestEventSourcedProjection(projection.EventSourcedProjectionTestCase):
    """An application on JetStream, followed by one that keeps its place in its own database."""

    @pytest.fixture(autouse=True)
    def _environment(self, nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
        settings: dict[str, Any] = {
            "PERSISTENCE_MODULE": "streams.recorders",
            "NATS_URL": nats.url,
            "COUNTERS_PERSISTENCE_MODULE": "eventsourcing.popo",
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
