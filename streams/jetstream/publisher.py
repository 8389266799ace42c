"""Appending: one plain publish or one atomic batch, and what the server's answer says about it."""

import itertools
from collections.abc import Mapping, Sequence
from secrets import token_hex

import msgspec

from streams.jetstream import frames
from streams.jetstream.connection import Connection, NobodyAnswers, NotSent, TooLarge, Unanswered
from streams.ports import BATCH_MAX, AppendUnknown, LogError, LogUnavailable, Record, RecordTooLarge, WrongSequence

APPEND_S = 2.0  # an fsync takes milliseconds; asking again after an unknown outcome is safe

_WRONG_SEQUENCE = {10071, 10164}
_TOO_LARGE = {
    10054,  # message size exceeds the stream's maximum
    10097,  # header size exceeds 64 KiB
    10199,  # more than 1,000 messages in a batch
}
# Answers that come before anything is stored. All others leave the outcome open: a store that failed (10077)
# may have failed after the write.
_NOTHING_STORED = {
    10002,  # account limits exceeded
    10008,  # the cluster is not available
    10009,  # not the leader
    10023,  # insufficient resources
    10028,  # memory limit of the account
    10039,  # JetStream is not enabled for the account
    10047,  # storage limit of the account
    10059,  # no such stream
    10074,  # too few replicas
    10076,  # JetStream is not enabled
    10109,  # the stream is sealed
    10174,  # the stream takes no atomic batches
    10175,  # a batch without sequence numbers
    10176,  # the batch is incomplete: a part came before a restart or a change of leader
    10177,  # a header that a batch may not have
}
_FULL = ("maximum messages exceeded", "maximum bytes exceeded")  # descriptions under 10077, checked before the write


class _Failure(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    seq: int = 0
    error: _Failure | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class Publisher:
    """Appends over one connection. Appends to different streams may overlap."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._name = token_hex(6)
        self._numbers = itertools.count(1)

    async def append(self, records: Sequence[Record], expected_last_sequence: int) -> int:
        """See `streams.ports.Log.append`."""
        # On the first it stands for the whole batch.
        return await self._append(records, {0: f"Nats-Expected-Last-Sequence: {expected_last_sequence}\r\n"})

    async def append_by_subject(self, records: Sequence[Record], expected_last_sequences: Mapping[str, int]) -> int:
        """As `append`, if each subject's last sequence is the one expected of it, 0 where it has no event.

        Whoever appends to other subjects of the stream is not in the way.
        """
        firsts: dict[str, int] = {}
        for place, record in enumerate(records):
            firsts.setdefault(record.subject, place)
        return await self._append(
            records,
            {
                place: f"Nats-Expected-Last-Subject-Sequence: {expected_last_sequences[subject]}\r\n"
                for subject, place in firsts.items()
            },
        )

    async def _append(self, records: Sequence[Record], expectations: Mapping[int, str]) -> int:
        """`expectations` are header lines, by the place of the record that they go with."""
        if not 1 <= len(records) <= BATCH_MAX:
            raise RecordTooLarge(f"an append has 1 to {BATCH_MAX:,} records, not {len(records):,}")
        if len(records) == 1:
            return await self._ask(records[0], expectations[0])
        batch = f"Nats-Batch-Id: {self._name}-{next(self._numbers)}\r\nNats-Batch-Sequence: "
        limit, first = self._connection.max_payload, []
        for place, record in enumerate(records[:-1]):
            lines = f"{frames.header_lines(record.headers)}{batch}{place + 1}\r\n{expectations.get(place, '')}"
            frame, size_bytes = frames.publication(record.subject, record.data, lines=lines)
            if size_bytes > limit:
                raise RecordTooLarge(f"{size_bytes:,} bytes, and the server takes {limit:,}")
            first.append(frame)
        commit = f"{batch}{len(records)}\r\nNats-Batch-Commit: 1\r\n{expectations.get(len(records) - 1, '')}"
        return await self._ask(records[-1], commit, b"".join(first))

    async def store(self, record: Record) -> int:
        """Append without an expectation. Raises as `append`, save WrongSequence."""
        return await self._ask(record, "")

    async def _ask(self, record: Record, lines: str, first: bytes = b"") -> int:
        lines = frames.header_lines(record.headers) + lines
        try:
            answer = await self._connection.ask(
                record.subject, record.data, lines=lines, first=first, timeout_s=APPEND_S
            )
        except (NotSent, NobodyAnswers) as error:
            raise LogUnavailable(str(error)) from error
        except TooLarge as error:
            raise RecordTooLarge(str(error)) from error
        except Unanswered as error:
            raise AppendUnknown(str(error)) from error
        try:
            outcome = _decode(answer.data)
        except msgspec.DecodeError as error:
            raise AppendUnknown(f"not an answer of JetStream's: {answer.data[:100]!r}") from error
        if outcome.error is not None:
            raise _error_of(outcome.error)
        return outcome.seq


def _error_of(failure: _Failure) -> LogError:
    message = f"{failure.description} ({failure.err_code})"
    if failure.err_code in _WRONG_SEQUENCE:
        return WrongSequence(message)
    if failure.err_code in _TOO_LARGE:
        return RecordTooLarge(message)
    if failure.err_code in _NOTHING_STORED or failure.description in _FULL:
        return LogUnavailable(message)
    return AppendUnknown(message)
