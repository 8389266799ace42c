"""Pairs: who of two users blocked the other."""

from datetime import timedelta
from typing import Any, cast

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from domain.events import Event
from domain.ids import direct_key, pair_key
from domain.pairs import Pair
from tests.domain.given import START, stored_and_read

KEY = pair_key("ann", "bob")


def test_a_pair_lies_where_its_direct_conversation_does_whoever_asks() -> None:
    assert pair_key("bob", "ann") == KEY
    assert KEY.slot == direct_key("ann", "bob").slot
    assert KEY.value != direct_key("ann", "bob").value


def test_a_pair_begins_with_the_first_block() -> None:
    pair = Pair.create(KEY.value, actor_id="ann", now=START)
    before = pair.blocks
    pair.block(actor_id="ann", now=START)
    assert (before, pair.blocks) == (False, True)
    assert [(event.TOPIC, event.actor_id) for event in collected(pair)] == [
        ("pair.created", "ann"),
        ("pair.blocked", "ann"),
    ]


def test_blocking_twice_is_blocking_once_and_the_others_block_stays() -> None:
    pair = Pair.create(KEY.value, actor_id="ann", now=START)
    for actor_id in ("ann", "ann", "bob"):
        pair.block(actor_id=actor_id, now=START)
    for _ in range(2):
        pair.unblock(actor_id="ann", now=START)
    before = pair.blocks
    pair.unblock(actor_id="bob", now=START)
    assert (before, pair.blocks) == (True, False)
    assert [(event.TOPIC, event.actor_id) for event in collected(pair)[1:]] == [
        ("pair.blocked", "ann"),
        ("pair.blocked", "bob"),
        ("pair.unblocked", "ann"),
        ("pair.unblocked", "bob"),
    ]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["ann", "bob"])), max_size=12))
def test_folding_what_was_stored_and_restoring_give_the_state_that_decided_it(steps: list[tuple[bool, str]]) -> None:
    pair = Pair.create(KEY.value, actor_id="ann", now=START)
    for seconds, (blocks, actor_id) in enumerate(steps, 1):
        decide = pair.block if blocks else pair.unblock
        decide(actor_id=actor_id, now=START + timedelta(seconds=seconds))
    last = {actor_id: blocks for blocks, actor_id in steps}
    assert pair.blocks == any(last.values())
    aggregate: Any = None
    for event in collected(pair):
        aggregate = stored_and_read(event).mutate(aggregate)
    assert aggregate.state() == pair.state()
    packed = msgspec.msgpack.decode(msgspec.msgpack.encode(pair.state()))
    assert Pair.restore(packed).state() == pair.state()


def collected(pair: Pair) -> list[Event]:
    return [cast(Event, event) for event in pair.collect_events()]
