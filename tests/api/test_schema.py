"""Decoding requests: as strict as the protocol says, for whatever comes."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from api.decoding import decode, decode_query
from api.envelope import Violation, parsed
from api.schema import MessagesQuery, PostMessageRequest
from domain.errors import Invalid

texts = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    # JSON has no infinity, though Python writes one.
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


class Pairs(msgspec.Struct):
    names: dict[str, dict[str, str]]


@given(texts, texts, st.lists(texts, max_size=4))
def test_what_is_decoded_is_what_was_sent(client_msg_id: str, text: str, mentions: list[str]) -> None:
    sent = {"client_msg_id": client_msg_id, "body": {"type": "text", "text": text}, "mentions": mentions}
    for ascii_only in (True, False):
        decoded = decode(json.dumps(sent, ensure_ascii=ascii_only).encode(), PostMessageRequest)
        assert (decoded.client_msg_id, decoded.body.text, decoded.mentions) == (client_msg_id, text, mentions)


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_anything_else_is_refused_in_one_way(raw: bytes) -> None:
    with pytest.raises(Invalid):
        decode(raw, PostMessageRequest)


@given(st.dictionaries(texts, st.dictionaries(texts, texts, max_size=3), min_size=1, max_size=3), st.data())
def test_a_name_given_twice_is_refused_wherever_it_is(names: dict[str, dict[str, str]], data: Any) -> None:
    assert decode(msgspec.json.encode({"names": names}), Pairs).names == names
    twice = data.draw(st.sampled_from(sorted(names)))
    inner = ",".join(f"{json.dumps(name)}:{json.dumps(names[name])}" for name in [*names, twice])
    with pytest.raises(Invalid) as refusal:
        decode(f'{{"names":{{{inner}}}}}'.encode(), Pairs)
    assert refusal.value.field == (twice if len(twice) <= 100 else twice[:100] + "…")


@given(texts, json_values, st.data())
def test_a_method_given_twice_ends_the_session(method: str, value: Any, data: Any) -> None:
    assume(method != "id")
    pairs = [("id", "7"), (method, json.dumps(value))]
    line = "{" + ",".join(f"{json.dumps(name)}:{raw}" for name, raw in pairs) + "}"
    assert parsed(line.encode()) == (b"7", method, pairs[1][1].encode())
    twice = [*pairs, data.draw(st.sampled_from(pairs))]
    line = "{" + ",".join(f"{json.dumps(name)}:{raw}" for name, raw in twice) + "}"
    with pytest.raises(Violation):
        parsed(line.encode())


def test_a_clients_own_words_are_cut_in_errors() -> None:
    with pytest.raises(Invalid) as refusal:
        decode(json.dumps({"x" * 10_000: 1}).encode(), PostMessageRequest)
    assert refusal.value.field is not None
    assert len(refusal.value.field) < 200


@given(st.integers(0, 2**63 - 1), st.integers(1, 200))
def test_numbers_of_a_query_are_read(after: int, limit: int) -> None:
    query = decode_query([("after", str(after)), ("limit", str(limit))], MessagesQuery)
    assert query == MessagesQuery(after=after, limit=limit)


@given(st.text().filter(lambda text: not (text.isascii() and text.isdigit())))
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as refusal:
        decode_query([("after", text)], MessagesQuery)
    assert refusal.value.field == "after"
