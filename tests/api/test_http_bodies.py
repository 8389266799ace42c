"""Bodies and queries as they should not be: each refused by its code and the name of what is wrong."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from tests.api.conftest import User, assert_problem, message
from tests.running import Running

UNKNOWN_ID = "7000000000000000001"


@pytest_asyncio.fixture(loop_scope="session")
async def messages(alice: User) -> str:
    """Where messages of a conversation are."""
    return f"/v1/conversations/{await alice.open_group()}/messages"


@pytest_asyncio.fixture(loop_scope="session")
async def nothing_posted(alice: User, messages: str) -> AsyncIterator[None]:
    """Whatever the test sends, nothing half done stays of it."""
    yield
    page = await alice.get(messages)
    assert page.json() == {"messages": [], "has_more": False}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"extra": 1}, "extra"),
        ({"body": {"type": "text", "text": "a", "colour": "red"}}, "body.colour"),
        ({"client_msg_id": None}, "client_msg_id"),
        ({"client_msg_id": 7}, "client_msg_id"),
        ({"client_msg_id": ""}, "client_msg_id"),
        ({"client_msg_id": "a b"}, "client_msg_id"),
        ({"client_msg_id": "x" * 65}, "client_msg_id"),
        ({"client_msg_id": "é"}, "client_msg_id"),
        ({"body": "text"}, "body"),
        ({"body": None}, "body"),
        ({"body": []}, "body"),
        ({"body": {"text": "a"}}, "body.type"),
        ({"body": {"type": "image", "text": "a"}}, "body.type"),
        ({"body": {"type": "text"}}, "body.text"),
        ({"body": {"type": "text", "text": 1}}, "body.text"),
        ({"body": {"type": "text", "text": ""}}, "body.text"),
        ({"body": {"type": "text", "text": "x" * 8193}}, "body.text"),
        ({"body": {"type": "text", "text": "a\0b"}}, "body.text"),
        ({"reply_to": 5}, "reply_to"),
        ({"reply_to": "05"}, "reply_to"),
        ({"reply_to": "-5"}, "reply_to"),
        ({"reply_to": "9223372036854775808"}, "reply_to"),
        ({"reply_to": "abc"}, "reply_to"),
        ({"reply_to": "٣"}, "reply_to"),
        ({"reply_to": UNKNOWN_ID}, "reply_to"),
        ({"mentions": "bob"}, "mentions"),
        ({"mentions": [1]}, "mentions[0]"),
        ({"mentions": ["a b"]}, "mentions"),
        ({"mentions": [f"user{i}" for i in range(51)]}, "mentions"),
    ],
)
@pytest.mark.usefixtures("nothing_posted")
async def test_a_wrong_field_is_refused_by_its_path(
    alice: User, messages: str, change: dict[str, Any], field: str
) -> None:
    assert_problem(await alice.post(messages, {**message(), **change}), 422, "invalid", field=field)


@pytest.mark.parametrize("missing", ["client_msg_id", "body"])
async def test_a_missing_field_is_named(alice: User, messages: str, missing: str) -> None:
    body = message()
    del body[missing]
    assert_problem(await alice.post(messages, body), 422, "invalid", field=missing)


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b'{"client_msg_id":"a","client_msg_id":"b","body":{"type":"text","text":"x"}}', "client_msg_id"),
        (b'{"client_msg_id":"a","body":{"type":"text","text":"x","text":"y"}}', "text"),
        (b'{"client_msg_id":"a","body":{"type":"text","text":"x","te\\u0078t":"x"}}', "text"),
    ],
)
@pytest.mark.usefixtures("nothing_posted")
async def test_a_duplicate_field_is_refused_by_name(alice: User, messages: str, raw: bytes, field: str) -> None:
    assert_problem(await alice.send(messages, raw), 422, "invalid", field=field)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b"null",
        b"[]",
        b"7",
        b'"text"',
        b"not json",
        b"{'client_msg_id': 'a'}",
        b"{} {}",
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf{}",
        b'{"client_msg_id":"a","body":{"type":"text","text":"\xff"}}',
        b'{"client_msg_id":"a","body":{"type":"text","text":"\xed\xa0\x80"}}',
        b'{"client_msg_id":"a","body":{"type":"text","text":NaN}}',
        b"[" * 200_000,
        b'{"body":' * 30_000,
        b'{"mentions":' + b"[" * 200_000,
        b'{"reply_to":' + b"9" * 200_000 + b"}",
    ],
    ids=lambda raw: repr(raw[:24]),
)
@pytest.mark.usefixtures("nothing_posted")
async def test_what_is_not_the_json_expected_is_refused(alice: User, messages: str, raw: bytes) -> None:
    response = await alice.send(messages, raw)
    assert_problem(response, 422, "invalid", field=response.json().get("field"))
    assert len(response.content) < 1000


@pytest.mark.parametrize("escape", [rb"\ud800", rb"\udfff", rb"a\udc00b", rb"\ude00\ud83d", rb"\ud800\ud800"])
@pytest.mark.usefixtures("nothing_posted")
async def test_a_lone_surrogate_is_refused(alice: User, messages: str, escape: bytes) -> None:
    raw = b'{"client_msg_id":"a","body":{"type":"text","text":"' + escape + b'"}}'
    problem = assert_problem(await alice.send(messages, raw), 422, "invalid")
    assert "surrogate" in problem["detail"]


async def test_a_surrogate_pair_is_a_character(alice: User, messages: str) -> None:
    raw = rb'{"client_msg_id":"a","body":{"type":"text","text":"\ud83d\ude00"}}'
    assert (await alice.send(messages, raw)).status_code == 201
    page = (await alice.get(messages)).json()
    assert page["messages"][0]["body"] == {"type": "text", "text": "😀"}


async def test_the_longest_text_is_taken_as_it_is(alice: User, messages: str) -> None:
    text = "😀" * 8192
    raw = json.dumps(message(text)).encode()  # 12 bytes a character, and still under the limit of a body
    assert (await alice.send(messages, raw)).status_code == 201
    assert (await alice.get(messages)).json()["messages"][0]["body"]["text"] == text


async def test_line_ends_become_one(alice: User, messages: str) -> None:
    assert (await alice.post(messages, message("a\r\nb\rc\n" + "\r\n" * 8186))).status_code == 201
    page = (await alice.get(messages)).json()
    assert page["messages"][0]["body"]["text"] == "a\nb\nc\n" + "\n" * 8186


@pytest.mark.parametrize("size_bytes", [256 * 1024 + 1, 1024 * 1024])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.usefixtures("nothing_posted")
async def test_a_body_too_large_is_refused(alice: User, messages: str, size_bytes: int, chunked: bool) -> None:
    raw = b'{"client_msg_id":"' + b"x" * (size_bytes - 18)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(raw), 50_000):
            yield raw[start : start + 50_000]

    response = await alice.send(messages, chunks() if chunked else raw)
    assert_problem(response, 413, "too_large")


async def test_a_body_of_just_the_limit_is_read(alice: User, messages: str) -> None:
    raw = json.dumps(message()).encode()
    assert (await alice.send(messages, raw + b" " * (256 * 1024 - len(raw)))).status_code == 201


@pytest.mark.parametrize("length", [b"10", b"100000"])
async def test_a_wrong_content_length_harms_nobody(alice: User, messages: str, running: Running, length: bytes) -> None:
    url = urlsplit(running.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(
        b"POST %b HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\ncontent-length: %b\r\n\r\n%b"
        % (messages.encode(), alice.token.encode(), length, json.dumps(message()).encode())
    )
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 20)
    assert b" 201 " not in answer.split(b"\r\n")[0]
    writer.close()
    await writer.wait_closed()
    assert (await alice.get(messages)).json()["messages"] == []


async def test_another_type_of_body_is_refused(alice: User, messages: str) -> None:
    raw = json.dumps(message()).encode()
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        response = await alice.send(messages, raw, **{"content-type": content_type})
        assert_problem(response, 415, "unsupported_media_type")


async def test_json_may_be_named_in_any_way_or_not_at_all(alice: User, messages: str) -> None:
    for content_type in ("application/json; charset=utf-8", "APPLICATION/JSON"):
        raw = json.dumps(message()).encode()
        assert (await alice.send(messages, raw, **{"content-type": content_type})).status_code == 201
    response = await alice.request("POST", messages, content=json.dumps(message()).encode())
    assert response.status_code == 201


async def test_a_call_without_a_body_takes_no_fields(alice: User) -> None:
    assert_problem(await alice.post("/v1/tickets", {"ttl": 1}), 422, "invalid", field="ttl")


@pytest.mark.parametrize("id_", ["0", "01", "-1", "+1", "1.0", "1e3", "abc", "٣", "9223372036854775808", "%00", "1%20"])
async def test_an_id_that_is_none_is_refused(alice: User, id_: str) -> None:
    for path in ("", "/messages", "/members", "/events"):
        response = await alice.get(f"/v1/conversations/{id_}{path}")
        assert_problem(response, 422, "invalid", field="conversation_id")
    response = await alice.post(f"/v1/conversations/{id_}/messages", message())
    assert_problem(response, 422, "invalid", field="conversation_id")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("limit=1.0", "limit"),
        ("limit=%2B1", "limit"),
        ("limit=%D9%A3", "limit"),
        ("limit=5&limit=6", "limit"),
        ("before=0", "before"),
        ("before=-1", "before"),
        ("before=9223372036854775808", "before"),
        ("before=" + "9" * 5000, "before"),
        ("after=-1", "after"),
        ("after=1&before=5", "after"),
        ("min_version=x", "min_version"),
        ("page=2", "page"),
        ("Limit=2", "Limit"),
    ],
)
async def test_a_wrong_parameter_is_refused_by_name(alice: User, messages: str, query: str, field: str) -> None:
    assert_problem(await alice.get(f"{messages}?{query}"), 422, "invalid", field=field)


async def test_a_member_cursor_that_is_no_user_id_is_refused(alice: User) -> None:
    path = f"/v1/conversations/{await alice.open_group()}/members"
    for after in ("", "a b", "\0", "x" * 65):
        assert_problem(await alice.get(path, after=after), 422, "invalid", field="after")
