"""The published document: it describes the server that runs, which schemathesis tries to prove wrong."""

from collections import Counter
from typing import Final

import httpx
import msgspec
import pytest
import schemathesis
from schemathesis.engine import events, from_schema

from api.app import _TABLE
from api.endpoint import Endpoint
from tests.running import Running

MAX_TIME_S: Final = 25  # the fuzzing repeats until it is spent; what is certain to be tried takes 12 s here


@pytest.mark.parametrize(
    "endpoint",
    [endpoint for endpoint in _TABLE if isinstance(endpoint, Endpoint) and endpoint.body],
    ids=lambda endpoint: f"{endpoint.method} {endpoint.path}",
)
def test_every_example_is_what_its_endpoint_takes(endpoint: Endpoint) -> None:
    assert endpoint.body is not None
    msgspec.convert(endpoint.example, endpoint.body)


async def test_the_document_covers_the_contract(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    operations = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert operations == {
        ("post", "/v1/conversations"),
        ("get", "/v1/conversations/{conversation_id}"),
        ("patch", "/v1/conversations/{conversation_id}"),
        ("get", "/v1/conversations/{conversation_id}/members"),
        ("post", "/v1/conversations/{conversation_id}/members"),
        ("get", "/v1/conversations/{conversation_id}/messages"),
        ("post", "/v1/conversations/{conversation_id}/messages"),
        ("get", "/v1/conversations/{conversation_id}/events"),
        ("get", "/v1/conversations/{conversation_id}/export"),
        ("post", "/v1/conversations/{conversation_id}/read"),
        ("get", "/v1/conversations/{conversation_id}/receipts"),
        ("patch", "/v1/conversations/{conversation_id}/settings"),
        ("get", "/v1/search"),
        ("get", "/v1/inbox"),
        ("get", "/v1/sync"),
        ("get", "/v1/profile"),
        ("patch", "/v1/profile"),
        ("get", "/v1/users/{user_id}"),
        ("get", "/v1/devices"),
        ("delete", "/v1/devices/{device_id}"),
        ("get", "/v1/blocks"),
        ("put", "/v1/blocks/{user_id}"),
        ("delete", "/v1/blocks/{user_id}"),
        ("post", "/v1/presence"),
        ("put", "/v1/presence"),
        ("post", "/v1/sql"),
        ("get", "/v1/admin/conversations/{conversation_id}"),
        ("get", "/v1/admin/conversations/{conversation_id}/members/{user_id}"),
        ("get", "/v1/admin/users/{user_id}/inbox"),
        ("post", "/v1/tickets"),
        *(("get", f"/{name}") for name in ("healthz", "readyz", "metrics", "version", "openapi.json")),
    }
    limit = next(
        parameter
        for parameter in document["paths"]["/v1/conversations/{conversation_id}/messages"]["get"]["parameters"]
        if parameter["name"] == "limit"
    )
    assert (limit["schema"]["minimum"], limit["schema"]["maximum"], limit["schema"]["default"]) == (1, 200, 50)


def test_the_server_keeps_to_its_document(running: Running) -> None:
    config = schemathesis.Config.from_dict(
        {
            "headers": {"Authorization": f"Bearer {running.token('schemathesis')}"},
            "generation": {"max-examples": 15, "database": "none"},
            "cache": {"enabled": False},
            "seed": 1,
            "max-time": MAX_TIME_S,
            "continue-on-failure": True,
            "checks": {
                # 503 is the promised answer to a `min_version` that does not come in time.
                "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503"]},
                # Rules between fields, and with what is stored, are no part of a schema: that a direct pair is two,
                # that before and after exclude each other, that a reply names a message that is there.
                "positive_data_acceptance": {"enabled": False},
            },
        }
    )
    schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json", config=config)
    failures: list[str] = []
    tried: Counter[str] = Counter()
    for event in from_schema(schema).execute():
        match event:
            case events.ScenarioFinished(recorder=recorder):
                tried[recorder.label] += len(recorder.interactions)
                failures += [
                    f"{check.name}: {check.failure_info.failure}\n{check.failure_info.code_sample}"
                    for checks in recorder.checks.values()
                    for check in checks
                    if check.failure_info is not None
                ]
            case events.NonFatalError() | events.FatalError():
                failures.append(repr(event))
            case events.EngineFinished():
                failures += map(str, event.failures)
    assert not failures, "\n\n".join(failures)
    # The other five are the paths for operators, which take no input: their examples are tried once.
    assert sum(count >= 5 for count in tried.values()) >= 9, tried
