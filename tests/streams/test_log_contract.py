"""What every `Log` promises, over memory and over JetStream."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from streams import subjects
from streams.ports import BATCH_MAX, Delivery, Log, LogUnavailable, Record, RecordTooLarge, Signal, WrongSequence
from streams.topology import Topology, TopologyMismatch
from tests.streams.conftest import Streams, until

STREAM = "CONV-0"


@pytest.fixture
async def log(streams: Streams) -> Log:
    await streams.log.ensure(Topology())
    return streams.log


def record(conversation: int, text: str, **headers: str) -> Record:
    return Record(f"conv.0.{conversation}", text.encode(), {"Rr-Type": "message.posted", **headers})


def records(count: int, *, first: int = 1, conversation: int = 1) -> list[Record]:
    return [record(conversation, str(number)) for number in range(first, first + count)]


async def texts(
    log: Log, *, subject: str | None = None, after_sequence: int = 0, up_to_sequence: int | None = None
) -> list[str]:
    reading = log.read(STREAM, subject=subject, after_sequence=after_sequence, up_to_sequence=up_to_sequence)
    return [delivery.data.decode() async for delivery in reading]


async def test_an_append_comes_back_as_it_went_in(log: Log) -> None:
    started_at = datetime.now(UTC)
    one = Record("conv.0.7", b"\x00\xff body\r\n", {"Rr-Type": "a", "Rr-Actor": "ödön: 1", "Rr-Empty": ""})
    assert await log.append(STREAM, [one], expected_last_sequence=0) == 1
    many = [one, Record("conv.0.dm.abc", b"", {"Rr-Type": "b"}), Record("conv.0.7", b"bare")]
    assert await log.append(STREAM, many, expected_last_sequence=1) == 4

    deliveries = [delivery async for delivery in log.read(STREAM)]
    assert [delivery.sequence for delivery in deliveries] == [1, 2, 3, 4]
    for delivery, stored in zip(deliveries, [one, *many], strict=True):
        assert (delivery.stream, delivery.subject, delivery.data) == (STREAM, stored.subject, stored.data)
        assert dict(delivery.headers) == dict(stored.headers)
        assert abs(delivery.stored_at - started_at) < timedelta(seconds=30)

    consumer = await log.consume(STREAM, "reader", after_sequence=0)
    assert await _fetched(consumer, 4) == deliveries
    await consumer.close()
    assert await log.last(STREAM) == deliveries[-1]


async def _fetched(consumer: object, count: int) -> list[Delivery]:
    deliveries: list[Delivery] = []
    async with asyncio.timeout(10):
        while len(deliveries) < count:
            deliveries += await consumer.fetch(count - len(deliveries), 1.0)  # type: ignore[attr-defined]
    return deliveries


async def test_a_header_cannot_smuggle_in_another(log: Log) -> None:
    await log.append(STREAM, [record(1, "x", Trace="a\r\nNats-Msg-Id: b\nRr-Actor: eve")], expected_last_sequence=0)
    last = await log.last(STREAM)
    assert last is not None
    assert set(last.headers) == {"Rr-Type", "Trace"}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("expected", [0, 1, 3])
async def test_a_wrong_expectation_stores_nothing(log: Log, count: int, expected: int) -> None:
    await log.append(STREAM, records(2), expected_last_sequence=0)
    with pytest.raises(WrongSequence):
        await log.append(STREAM, records(count, conversation=2), expected_last_sequence=expected)
    assert await log.last_sequence(STREAM) == 2
    assert await texts(log) == ["1", "2"]


@pytest.mark.parametrize("size", [1, 5])
async def test_of_two_appends_after_the_same_event_one_wins(log: Log, size: int) -> None:
    outcomes = await asyncio.gather(
        log.append(STREAM, records(size, conversation=1), expected_last_sequence=0),
        log.append(STREAM, records(size, conversation=2), expected_last_sequence=0),
        return_exceptions=True,
    )
    assert [outcome for outcome in outcomes if outcome == size] == [size]
    assert sum(isinstance(outcome, WrongSequence) for outcome in outcomes) == 1
    assert len({delivery.subject async for delivery in log.read(STREAM)}) == 1
    assert await log.last_sequence(STREAM) == size


async def test_a_thousand_records_are_one_append_and_one_more_is_too_many(log: Log) -> None:
    with pytest.raises(RecordTooLarge):
        await log.append(STREAM, records(BATCH_MAX + 1), expected_last_sequence=0)
    assert await log.append(STREAM, records(BATCH_MAX), expected_last_sequence=0) == BATCH_MAX
    assert await texts(log) == [str(number) for number in range(1, BATCH_MAX + 1)]


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_record_over_the_payload_limit_stores_nothing_of_its_append(log: Log, place: int) -> None:
    batch = records(3)
    batch[place] = record(1, "x" * (1 << 20))
    with pytest.raises(RecordTooLarge):
        await log.append(STREAM, batch, expected_last_sequence=0)
    with pytest.raises(RecordTooLarge):
        await log.append(STREAM, [batch[place]], expected_last_sequence=0)
    assert await log.last_sequence(STREAM) == 0
    assert await log.append(STREAM, records(2), expected_last_sequence=0) == 2


async def test_an_empty_stream_has_no_last_event_and_nothing_to_read(log: Log) -> None:
    assert await log.last_sequence(STREAM) == 0
    assert await log.last(STREAM) is None
    assert await log.last(STREAM, "conv.0.1") is None
    assert await texts(log) == []
    assert await texts(log, subject="conv.0.1") == []


async def test_reading_is_bounded_by_subject_and_sequences(log: Log) -> None:
    await log.append(STREAM, records(3, conversation=1), expected_last_sequence=0)  # 1, 2, 3
    await log.append(STREAM, records(2, first=4, conversation=2), expected_last_sequence=3)  # 4, 5
    await log.append(STREAM, records(2, first=6, conversation=1), expected_last_sequence=5)  # 6, 7
    assert await texts(log, subject="conv.0.1") == ["1", "2", "3", "6", "7"]
    assert await texts(log, subject="conv.0.2") == ["4", "5"]
    assert await texts(log, after_sequence=5) == ["6", "7"]
    assert await texts(log, after_sequence=7) == []
    assert await texts(log, after_sequence=100) == []
    assert await texts(log, after_sequence=1, up_to_sequence=4) == ["2", "3", "4"]
    assert await texts(log, up_to_sequence=100) == ["1", "2", "3", "4", "5", "6", "7"]
    assert await texts(log, up_to_sequence=0) == []
    assert await texts(log, subject="conv.0.1", after_sequence=2, up_to_sequence=6) == ["3", "6"]
    last = await log.last(STREAM, "conv.0.2")
    assert last is not None
    assert (last.sequence, last.data) == (5, b"5")


async def test_reading_ends_where_the_log_ended_when_it_began(log: Log) -> None:
    last = await log.append(STREAM, records(700), expected_last_sequence=0)
    seen: list[int] = []
    async for delivery in log.read(STREAM):
        if not seen:
            await log.append(STREAM, records(5), expected_last_sequence=last)
        seen.append(delivery.sequence)
    assert seen == list(range(1, 701))


async def test_a_stream_that_is_not_there_is_unavailable(streams: Streams) -> None:
    with pytest.raises(LogUnavailable):
        await streams.log.append(STREAM, records(1), expected_last_sequence=0)
    with pytest.raises(LogUnavailable):
        await streams.log.append(STREAM, records(2), expected_last_sequence=0)
    with pytest.raises(LogUnavailable):
        await streams.log.last(STREAM)
    with pytest.raises(LogUnavailable):
        await streams.log.last_sequence(STREAM)
    with pytest.raises(LogUnavailable):
        await texts(streams.log)
    with pytest.raises(LogUnavailable):
        await streams.log.consume(STREAM, "reader", after_sequence=0)
    with pytest.raises(LogUnavailable):
        await streams.log.place(STREAM, "reader")


async def test_a_consumer_delivers_in_order_what_was_and_what_comes(log: Log) -> None:
    await log.append(STREAM, records(10), expected_last_sequence=0)
    consumer = await log.consume(STREAM, "reader", after_sequence=4)
    assert [delivery.sequence for delivery in await _fetched(consumer, 6)] == [5, 6, 7, 8, 9, 10]
    assert await consumer.fetch(10, 0.05) == []
    waiting = asyncio.create_task(consumer.fetch(10, 10.0))
    await log.append(STREAM, [record(1, "new")], expected_last_sequence=10)
    assert [delivery.data for delivery in await waiting] == [b"new"]
    await consumer.close()


async def test_a_consumer_gives_no_more_than_was_asked_for_and_knows_what_is_left(log: Log) -> None:
    await log.append(STREAM, records(10), expected_last_sequence=0)
    consumer = await log.consume(STREAM, "reader", after_sequence=0)
    assert await consumer.pending() == 10
    assert len(await consumer.fetch(3, 5.0)) <= 3
    await consumer.close()
    consumer = await log.consume(STREAM, "reader", after_sequence=3)
    assert len(await _fetched(consumer, 3)) == 3
    assert await consumer.pending() == 4
    await consumer.close()


async def test_more_than_a_consumer_may_hold_arrives_whole(log: Log) -> None:
    last, total = 0, 6_000
    while last < total:
        last = await log.append(STREAM, records(1_000, first=last + 1), expected_last_sequence=last)
    consumer = await log.consume(STREAM, "reader", after_sequence=0)
    seen: list[int] = []
    while len(seen) < total:
        deliveries = await consumer.fetch(333, 5.0)
        assert deliveries
        seen += [delivery.sequence for delivery in deliveries]
        await consumer.ack(seen[-1])
    assert seen == list(range(1, total + 1))
    await consumer.close()


@pytest.mark.parametrize("after", [0, 3, 7, 10])
async def test_a_consumer_begins_where_it_is_told_whatever_it_did_before(log: Log, after: int) -> None:
    await log.append(STREAM, records(10), expected_last_sequence=0)
    before = await log.consume(STREAM, "reader", after_sequence=2)
    await _fetched(before, 5)
    await before.ack(7)
    await before.close()
    consumer = await log.consume(STREAM, "reader", after_sequence=after)
    await log.append(STREAM, [record(1, "11")], expected_last_sequence=10)
    deliveries = await _fetched(consumer, 11 - after)
    assert [delivery.sequence for delivery in deliveries] == list(range(after + 1, 12))
    await consumer.close()


async def acked_up_to(log: Log, sequence: int) -> None:
    """Wait until the reader's place is there: an acknowledgement is not answered."""
    async with asyncio.timeout(10):
        while await log.place(STREAM, "reader") != sequence:
            await asyncio.sleep(0.005)


async def test_a_place_is_what_was_acknowledged_and_outlives_its_consumer(log: Log) -> None:
    await log.append(STREAM, records(10), expected_last_sequence=0)
    assert await log.place(STREAM, "reader") is None
    consumer = await log.consume(STREAM, "reader", after_sequence=4)
    assert await log.place(STREAM, "reader") == 4
    assert len(await _fetched(consumer, 6)) == 6
    assert await log.place(STREAM, "reader") == 4
    await consumer.ack(7)
    await acked_up_to(log, 7)
    await consumer.close()
    assert await log.place(STREAM, "reader") == 7
    assert await log.place(STREAM, "another") is None
    assert await log.place("USER-0", "reader") is None
    again = await log.consume(STREAM, "reader", after_sequence=7)
    assert await log.place(STREAM, "reader") == 7
    assert [delivery.sequence for delivery in await _fetched(again, 3)] == [8, 9, 10]
    await again.ack(10)
    await acked_up_to(log, 10)
    await again.close()


async def test_a_place_at_the_end_of_an_empty_stream_is_its_beginning(log: Log) -> None:
    consumer = await log.consume(STREAM, "reader", after_sequence=0)
    assert await log.place(STREAM, "reader") == 0
    await consumer.close()


async def test_readers_do_not_disturb_each_other(log: Log) -> None:
    await log.append(STREAM, records(5), expected_last_sequence=0)
    first = await log.consume(STREAM, "first", after_sequence=0)
    second = await log.consume(STREAM, "second", after_sequence=0)
    assert len(await _fetched(first, 5)) == 5
    await first.ack(5)
    assert len(await _fetched(second, 5)) == 5
    await first.close()
    await second.close()


async def test_events_are_republished_as_they_are_stored_and_reservations_and_pairs_are_not(streams: Streams) -> None:
    await streams.log.ensure(Topology())
    heard: list[Signal] = []
    subscription = await streams.bus.subscribe("live.>", heard.append)
    await streams.log.append(STREAM, [record(5, "a")], expected_last_sequence=0)
    await streams.log.append(
        STREAM,
        [Record("conv.0.dm.abc", b"r"), Record("conv.0.pair.abc", b"p"), record(5, "b"), record(6, "c")],
        expected_last_sequence=1,
    )
    await until(lambda: len(heard) >= 3)
    await subscription.close()
    assert [(signal.subject, signal.data) for signal in heard] == [
        ("live.conv.5", b"a"),
        ("live.conv.5", b"b"),
        ("live.conv.6", b"c"),
    ]
    assert [signal.headers["Nats-Sequence"] for signal in heard] == ["1", "4", "5"]
    assert {signal.headers["Nats-Stream"] for signal in heard} == {STREAM}
    assert heard[2].headers["Nats-Subject"] == "conv.0.6"
    assert heard[2].headers["Rr-Type"] == "message.posted"


async def test_events_of_a_user_are_heard_by_their_gateways_alone(streams: Streams) -> None:
    await streams.log.ensure(Topology())
    heard: list[Signal] = []
    subscription = await streams.bus.subscribe(subjects.live_user("ann.b"), heard.append)
    for sequence, user in enumerate(("ann.b", "ann", "ann.b")):
        stored = Record(subjects.aggregate(subjects.USER, 0, user), user.encode(), {"Rr-Type": "read.moved"})
        await streams.log.append("USER-0", [stored], expected_last_sequence=sequence)
    await until(lambda: len(heard) >= 2)
    await subscription.close()
    assert [signal.data for signal in heard] == [b"ann.b"] * 2
    assert [signal.headers["Nats-Sequence"] for signal in heard] == ["1", "3"]
    assert {subjects.aggregate_id(signal.headers["Nats-Subject"]) for signal in heard} == {"ann.b"}


async def test_partitions_are_streams_of_their_own(streams: Streams) -> None:
    await streams.log.ensure(Topology(partitions=4))
    for partition in range(4):
        await streams.log.append(
            f"CONV-{partition}", [Record(f"conv.{partition}.1", b"x")] * (partition + 1), expected_last_sequence=0
        )
        await streams.log.append(f"USER-{partition}", [Record(f"user.{partition}.ann", b"x")], expected_last_sequence=0)
    assert [await streams.log.last_sequence(f"CONV-{partition}") for partition in range(4)] == [1, 2, 3, 4]
    assert [await streams.log.last_sequence(f"USER-{partition}") for partition in range(4)] == [1] * 4


async def test_ensuring_again_changes_nothing(log: Log) -> None:
    await log.append(STREAM, records(3), expected_last_sequence=0)
    await asyncio.gather(*(log.ensure(Topology()) for _ in range(5)))
    assert await texts(log) == ["1", "2", "3"]


@pytest.mark.parametrize(("made", "asked"), [(1, 2), (4, 1), (4, 2)])
async def test_another_number_of_partitions_is_refused_in_words(streams: Streams, made: int, asked: int) -> None:
    await streams.log.ensure(Topology(partitions=made))
    with pytest.raises(TopologyMismatch) as refusal:
        await streams.log.ensure(Topology(partitions=asked))
    assert str(made) in refusal.value.detail
    assert str(asked) in refusal.value.detail
    await streams.log.ensure(Topology(partitions=made))
    if asked > made:
        with pytest.raises(LogUnavailable):
            await streams.log.last_sequence(f"CONV-{asked - 1}")


async def test_dead_events_are_kept(log: Log) -> None:
    await log.publish_dead("dead.heads.0", record(1, "bad", Why="broken"))
    last = await log.last("DEAD", "dead.heads.0")
    assert last is not None
    assert (last.subject, last.data, last.headers["Why"]) == ("dead.heads.0", b"bad", "broken")


async def test_a_stream_has_forgotten_nothing_at_first(log: Log) -> None:
    assert await log.trimmed(STREAM) == 0
    await log.append(STREAM, records(3), expected_last_sequence=0)
    assert await log.trimmed(STREAM) == 0


@pytest.mark.parametrize("up_to", [0, 3, 5, 9])
async def test_a_trimmed_stream_goes_on_where_it_was(log: Log, up_to: int) -> None:
    await log.append(STREAM, records(5), expected_last_sequence=0)
    await log.trim(STREAM, up_to)
    await log.trim(STREAM, up_to - 1)  # what was forgotten before changes nothing
    left = [str(number) for number in range(1, 6) if number > up_to]
    assert await log.trimmed(STREAM) == min(up_to, 5)
    assert await log.last_sequence(STREAM) == 5
    assert await texts(log) == left
    assert await texts(log, after_sequence=1, up_to_sequence=4) == [text for text in left if "1" < text <= "4"]
    last = await log.last(STREAM, "conv.0.1")
    assert (None if last is None else last.data.decode()) == (left[-1] if left else None)

    assert await log.append(STREAM, [record(1, "6")], expected_last_sequence=5) == 6
    assert await texts(log, subject="conv.0.1") == [*left, "6"]
    consumer = await log.consume(STREAM, "reader", after_sequence=0)
    assert [delivery.data.decode() for delivery in await _fetched(consumer, len(left) + 1)] == [*left, "6"]
    await consumer.close()


async def test_the_keys_of_reservations_and_pairs_stay(log: Log) -> None:
    await log.append(STREAM, [*records(3), key := Record("conv.0.dm.x", b"key")], expected_last_sequence=0)
    await log.append(STREAM, records(3), expected_last_sequence=4)
    await log.trim(STREAM, 5)
    assert [delivery.sequence async for delivery in log.read(STREAM)] == [4, 6, 7]
    last = await log.last(STREAM, key.subject)
    assert last is not None
    assert last.sequence == 4
    await log.trim(STREAM, 7)
    assert [delivery.sequence async for delivery in log.read(STREAM)] == [4]
    assert await log.append(STREAM, records(1), expected_last_sequence=7) == 8
    consumer = await log.consume(STREAM, "reader", after_sequence=0)
    assert [delivery.sequence for delivery in await _fetched(consumer, 2)] == [4, 8]
    await consumer.close()


async def test_two_streams_are_trimmed_at_once(log: Log) -> None:
    await log.append(STREAM, records(5), expected_last_sequence=0)
    users = [Record("user.0.ann", b"x") for _ in range(5)]
    await log.append("USER-0", users, expected_last_sequence=0)
    await asyncio.gather(*(log.trim(stream, up_to) for up_to in (2, 4) for stream in (STREAM, "USER-0")))
    assert [await log.trimmed(stream) for stream in (STREAM, "USER-0")] == [4, 4]


async def test_a_stream_that_is_not_there_forgets_nothing(log: Log) -> None:
    with pytest.raises(LogUnavailable):
        await log.trim("CONV-9", 1)
