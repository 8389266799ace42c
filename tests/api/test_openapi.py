"""The published document: it describes the server that runs, which schemathesis tries to prove wrong."""

import asyncio
import subprocess
import sys

import httpx
import msgspec
import pytest

from api.conversations import ENDPOINTS as CONVERSATIONS
from api.endpoint import Endpoint
from api.members import ENDPOINTS as MEMBERS
from api.messages import ENDPOINTS as MESSAGES
from tests.api.conftest import User
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
