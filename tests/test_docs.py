"""The written word against the code: what the documents name exists, and what exists is named."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
import yaml  # type: ignore[import-untyped]  # no stubs among our dependencies
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

import api.app
import commands.writer  # noqa: F401  # registers its metrics
from api import envelope
from api.errors import STATUSES
from api.methods import METHODS
from api.presence import PresenceAnswer
from api.presence_view import PresenceView
from api.schema import MessageAck, ReadMarker, SyncQuery
from api.sessions import CloseCode
from api.sse import Closed, StreamConnected
from domain.events import INTERNAL, OF_CONVERSATIONS, OF_USERS
from projections.pages import Device, InboxEntry, LeftEntry, Profile, SyncEntry, SyncPage
from runtime.cli import COMMANDS
from runtime.settings import Settings, variable_of
from runtime.wiring import ROLES
from streams import topology
from streams.public import ConversationView, Message, PublicEvent, UserEvent

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md")), *sorted((ROOT / "examples").glob("*.md"))]
ASYNCAPI: dict[str, Any] = yaml.safe_load((DOCS / "asyncapi.yaml").read_text())
SCHEMAS: dict[str, Any] = ASYNCAPI["components"]["schemas"]
PROTOCOL = (DOCS / "protocol.md").read_text()
METRICS = (DOCS / "metrics.md").read_text()
OPERATIONS = (DOCS / "operations.md").read_text()


def references(node: Any) -> Iterator[str]:
    """Every `$ref` in a document."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from references(child)


def found(reference: str) -> Any:
    """What a reference names; `KeyError` when there is no such thing."""
    node: Any = ASYNCAPI
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


def anchor(heading: str) -> str:
    """The anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


# -- pages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        name, _, fragment = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), f"{page.name}: {target}"
        if fragment:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert fragment in map(anchor, headings), f"{page.name}: {target}"


def test_every_decision_is_in_the_index_once_and_numbered_without_a_hole() -> None:
    files = sorted(path.name for path in (DOCS / "adr").glob("[0-9]*.md"))
    assert re.findall(r"\]\((\d{4}-[^)]+)\)", (DOCS / "adr" / "README.md").read_text()) == files
    assert [name[:4] for name in files] == [f"{number:04}" for number in range(1, len(files) + 1)]
    for name in files:
        text = (DOCS / "adr" / name).read_text()
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"], name
        assert re.search(r"^Status: \w+, \d{4}-\d{2}-\d{2}$", text, re.MULTILINE), name


def test_operations_names_settings_that_exist_and_all_that_matter() -> None:
    named = set(re.findall(r"RIVERRUN_[A-Z_]+[A-Z]", OPERATIONS + PROTOCOL))
    known = {variable_of(name) for name in Settings.__dataclass_fields__}
    urls = {f"{name}_FILE" for name in known if name.endswith("_URL")}
    assert named <= known | urls
    assert known <= set(re.findall(r"RIVERRUN_[A-Z_]+[A-Z]", OPERATIONS))


def test_the_tables_of_metrics_are_the_registry() -> None:
    ours = {
        f"{family.name}_total" if family.type == "counter" else family.name: family.type
        for family in REGISTRY.collect()
        if family.name.startswith("riverrun_")
    }
    rows = re.findall(r"^\| `(riverrun_[a-z_]+)` \| (\w+) \| (.*?) \|", METRICS, re.MULTILINE)
    assert sorted((name, kind) for name, kind, _ in rows) == sorted(ours.items())
    assert set(re.findall(r"`(riverrun_[a-z_]+)`", OPERATIONS)) <= ours.keys()


def test_the_tables_of_metrics_have_their_labels() -> None:
    rows = re.findall(r"^\| `(riverrun_[a-z_]+)` \| \w+ \| (.*?) ?\|", METRICS, re.MULTILINE)
    shown = {name.removesuffix("_total"): tuple(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    labelled = {
        collector._name: tuple(collector._labelnames)
        for collector in set(REGISTRY._collector_to_names)
        if isinstance(collector, MetricWrapperBase) and collector._name.startswith("riverrun_")
    }
    assert {name: shown[name] for name in labelled} == labelled
    assert all(not shown[name] for name in shown.keys() - labelled.keys())


def test_the_architecture_lists_every_stream_and_role() -> None:
    architecture = (DOCS / "architecture.md").read_text()
    for spec in topology.Topology().streams():
        assert f"`{spec.name.replace('-0', '-<p>')}`" in architecture
    for role in ROLES:
        assert f"`{role}`" in architecture


# -- protocol.md --------------------------------------------------------------------------------------------


def test_the_protocol_names_every_path_command_code_and_event() -> None:
    for route in api.app._TABLE:
        path = route.path
        for parameter, shown in (("{conversation_id}", "{id}"), ("{user_id}", "{user}"), ("{device_id}", "{device}")):
            path = path.replace(parameter, shown)
        assert path in PROTOCOL, path
    for command in COMMANDS:
        assert f"`riverrun {command}" in PROTOCOL, command
    for code, (status, _) in STATUSES.items():
        assert re.search(rf"^\| .*`{code}`.* \| {status} \|", PROTOCOL, re.MULTILINE), code
    for close_code in CloseCode:
        assert f"| {int(close_code)} |" in PROTOCOL
    for event in (*OF_CONVERSATIONS, *OF_USERS):
        assert re.search(rf"^\| .*`{event.TOPIC}`.* \| ", PROTOCOL, re.MULTILINE), event.TOPIC
    for event in INTERNAL:
        assert event.TOPIC not in PROTOCOL


@pytest.mark.parametrize(
    "shape",
    [ConversationView, Message, PublicEvent, MessageAck, InboxEntry, Profile, Device, PresenceView],
    ids=lambda shape: shape.__name__,
)
def test_the_protocol_names_every_field_of_what_clients_get(shape: Any) -> None:
    # As a list of names, or as the keys of an object.
    plain = re.sub(r"[\s`{}\"]+", " ", PROTOCOL)
    assert f" {', '.join(shape.__struct_fields__)}" in plain.replace(" ,", ",")


# -- asyncapi.yaml ------------------------------------------------------------------------------------------


def test_asyncapi_is_of_version_3_and_every_reference_is_there() -> None:
    assert ASYNCAPI["asyncapi"] == "3.0.0"
    assert set(ASYNCAPI) >= {"info", "servers", "channels", "operations", "components"}
    for reference in references(ASYNCAPI):
        assert found(reference) is not None
    for schema in SCHEMAS.values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def test_asyncapi_has_the_methods_of_the_socket() -> None:
    asked = ASYNCAPI["operations"]["request"]["messages"]
    assert tuple(reference["$ref"].rpartition("/")[2] for reference in asked) == ("connect", *METHODS)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("ConnectRequest", envelope.ConnectRequest),
        ("SendRequest", envelope.SendRequest),
        ("HistoryRequest", envelope.HistoryRequest),
        ("EventsRequest", envelope.EventsRequest),
        ("PingRequest", envelope.PingRequest),
        ("Connected", envelope.Connected),
        ("Connected", StreamConnected),
        ("MessageAck", MessageAck),
        ("Message", Message),
        ("PublicEvent", PublicEvent),
        ("UserEvent", UserEvent),
        ("ReadRequest", envelope.ReadRequest),
        ("TypingRequest", envelope.TypingRequest),
        ("PresenceMethod", envelope.PresenceMethod),
        ("SyncQuery", SyncQuery),
        ("ReadMarker", ReadMarker),
        ("PresenceAnswer", PresenceAnswer),
        ("PresenceView", PresenceView),
        ("SyncPage", SyncPage),
        ("SyncEntry", SyncEntry),
        ("LeftEntry", LeftEntry),
    ],
)
def test_asyncapi_has_the_fields_of_the_code(name: str, shape: Any) -> None:
    assert set(SCHEMAS[name]["properties"]) == set(shape.__struct_fields__)
    if name.endswith("Request"):
        required = {field.name for field in msgspec.structs.fields(shape) if field.required}
        assert set(SCHEMAS[name].get("required", [])) == required
        assert SCHEMAS[name]["additionalProperties"] is False


def test_asyncapi_has_the_close_codes_and_event_types_of_the_code() -> None:
    assert SCHEMAS["CloseCode"]["enum"] == [int(code) for code in CloseCode]
    assert set(SCHEMAS["PublicEvent"]["properties"]["type"]["examples"]) == {event.TOPIC for event in OF_CONVERSATIONS}
    assert set(SCHEMAS["UserEvent"]["properties"]["type"]["examples"]) == {event.TOPIC for event in OF_USERS}
    closing = ASYNCAPI["components"]["messages"]["close"]["payload"]
    assert set(closing["properties"]) == set(Closed.__struct_fields__)
