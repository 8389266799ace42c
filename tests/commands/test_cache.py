from datetime import UTC, datetime

from commands.cache import AggregateCache, Loaded
from domain.conversations import Conversation


def _conversation(number: int) -> Conversation:
    return Conversation.create(
        number << 12,
        actor_id="alice",
        kind="group",
        members=[f"user-{i}" for i in range(50)],
        name=None,
        settings={},
        now=datetime.now(UTC),
    )


def test_what_was_used_longest_ago_goes_first() -> None:
    one, two, three = (Loaded(_conversation(n)) for n in (1, 2, 3))
    cache = AggregateCache(one.size_bytes * 2)
    cache.put("1", one)
    cache.put("2", two)
    assert cache.get("1") is one
    cache.put("3", three)
    cache.shrink()
    assert cache.get("2") is None
    assert cache.get("1") is one
    assert cache.get("3") is three


def test_weighing_again_counts_growth_once() -> None:
    cache = AggregateCache(1 << 30)
    loaded = Loaded(_conversation(1))
    cache.put("1", loaded)
    cache.put("1", loaded)
    assert cache.size_bytes == loaded.size_bytes
    cache.drop("1")
    assert cache.size_bytes == 0


def test_absence_is_remembered_and_weighs_something() -> None:
    cache = AggregateCache(1 << 20)
    cache.put("7", Loaded(None))
    entry = cache.get("7")
    assert entry is not None
    assert entry.aggregate is None
    assert cache.size_bytes > 0
