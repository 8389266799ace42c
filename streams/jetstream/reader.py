"""Reading by batch direct get: pages of stored events, answered by any replica."""

from collections.abc import AsyncIterator
from datetime import datetime

import msgspec

from streams.jetstream.connection import Answer, Connection, RequestError
from streams.ports import Delivery, LogUnavailable

PAGE_MAX = 512  # events a request: a round trip in 512 is small beside decoding them
PAGE_BYTES = 4 * 1024 * 1024
PAGE_S = 5.0
NOT_FOUND = "404"
END_OF_PAGE = "204"
SERVER_PREFIX = "Nats-"  # headers the server or an append's mechanics added; the event's own have no such name


async def read(
    connection: Connection, stream: str, *, subject: str | None, after_sequence: int, up_to_sequence: int | None
) -> AsyncIterator[Delivery]:
    """See `streams.ports.Log.read`."""
    remaining: int | None = None  # how many events there were to read when the reading began
    while remaining is None or remaining > 0:
        if up_to_sequence is not None and after_sequence >= up_to_sequence:
            return
        # Without a limit a page of 1 would do for a reader that stops early; with one it is never asked past it.
        size = PAGE_MAX if up_to_sequence is None else min(PAGE_MAX, up_to_sequence - after_sequence)
        page, pending = await _page(connection, stream, subject or ">", after_sequence + 1, size)
        if remaining is None:
            remaining = len(page) + pending
        for delivery in page:
            if up_to_sequence is not None and delivery.sequence > up_to_sequence:
                return
            yield delivery
            after_sequence = delivery.sequence
            remaining -= 1
            if remaining == 0:
                return
        if not pending:
            return


async def _page(
    connection: Connection, stream: str, subject: str, first_sequence: int, size: int
) -> tuple[list[Delivery], int]:
    request = {"seq": first_sequence, "next_by_subj": subject, "batch": size, "max_bytes": PAGE_BYTES}
    try:
        answers, end = await connection.ask_page(
            f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(request), timeout_s=PAGE_S
        )
    except RequestError as error:
        raise LogUnavailable(f"reading {stream}: {error}") from error
    if end.status == NOT_FOUND:
        return [], 0
    page = [_delivery(answer) for answer in answers]
    if end.status != END_OF_PAGE or not page or end.headers.get("Nats-Last-Sequence") != str(page[-1].sequence):
        raise LogUnavailable(f"reading {stream}: the page ended with {dict(end.headers)}")
    return page, int(end.headers["Nats-Num-Pending"])


def _delivery(answer: Answer) -> Delivery:
    headers = answer.headers
    return Delivery(
        headers["Nats-Stream"],
        int(headers["Nats-Sequence"]),
        headers["Nats-Subject"],
        answer.data,
        {name: value for name, value in headers.items() if not name.startswith(SERVER_PREFIX)},
        datetime.fromisoformat(headers["Nats-Time-Stamp"]),
    )
