"""The published document: it describes the server that runs, which schemathesis tries to prove wrong."""

from typing import Any

import httpx
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance

from api.conversations import ENDPOINTS as CONVERSATIONS
from api.endpoint import Endpoint
from api.members import ENDPOINTS as MEMBERS
from api.messages import ENDPOINTS as MESSAGES
from tests.running import Running


@pytest.mark.parametrize(
    "endpoint", [endpoint for endpoint in (*CONVERSATIONS, *MEMBERS, *MESSAGES) if endpoint.body], ids=lambda e: e.path
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
        ("post", "/v1/tickets"),
        *(("get", f"/{name}") for name in ("healthz", "readyz", "metrics", "version", "openapi.json")),
    }
    limit = next(
        parameter
        for parameter in document["paths"]["/v1/conversations/{conversation_id}/messages"]["get"]["parameters"]
        if parameter["name"] == "limit"
    )
    assert (limit["schema"]["minimum"], limit["schema"]["maximum"], limit["schema"]["default"]) == (1, 200, 50)


@pytest.fixture(scope="session")
def published(running: Running) -> Any:
    return schemathesis.openapi.from_url(f"{running.url}/openapi.json")


published_schema = schemathesis.pytest.from_fixture("published")


def fails_only_as_promised(_context: Any, response: Any, case: Any) -> None:
    """In place of `not_a_server_error`: 503 is the answer to a `min_version` that does not come."""
    if response.status_code >= 500:
        assert response.status_code == 503
        assert case.query["min_version"]


@published_schema.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_server_keeps_to_its_document(case: Any, running: Running) -> None:
    case.call_and_validate(
        headers={"Authorization": f"Bearer {running.token('schemathesis')}"},
        additional_checks=[fails_only_as_promised],
        # Rules between fields, and with what is stored, are no part of a schema: that a direct conversation has
        # two members, that before and after exclude each other, that a reply names a message that is there.
        excluded_checks=[not_a_server_error, positive_data_acceptance],
    )
