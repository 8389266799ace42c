"""Reading by batch direct get: pages of stored events, answered by any replica."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeAlias

import msgspec

from streams.jetstream import frames
from streams.jetstream.connection import Connection, RequestError
from streams.ports import Delivery, LogUnavailable

PAGE_MAX = 512  # events a request: a round trip in 512 is small beside decoding them
PAGE_BYTES = 4 * 1024 * 1024
PAGE_S = 5.0
NOT_FOUND = "404"
END_OF_PAGE = "204"


async def read(
    connection: Connection, stream: str, *, subject: str | None, after_sequence: int, up_to_sequence: int | None
) -> AsyncIterator[Delivery]:
    """See `streams.ports.Log.read`."""
    remaining: int | None = None  # how many events there were to read when the reading began
    asked = _ask(connection, stream, subject, after_sequence, up_to_sequence)
    try:
        while asked is not None:
            page, pending = await asked
            if remaining is None:
                remaining = len(page) + pending
            end = page[-1].sequence if page else after_sequence
            # The next page is on its way while this one is worked on.
            more = pending > 0 and remaining > len(page)
            asked = _ask(connection, stream, subject, end, up_to_sequence) if more else None
            for delivery in page:
                if remaining == 0 or (up_to_sequence is not None and delivery.sequence > up_to_sequence):
                    return
                yield delivery
                remaining -= 1
    finally:
        if asked is not None:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)


_Page: TypeAlias = tuple[list[Delivery], int]


def _ask(
    connection: Connection, stream: str, subject: str | None, after_sequence: int, up_to_sequence: int | None
) -> "asyncio.Task[_Page] | None":
    """The next page; `None` when there is nothing before the limit."""
    if up_to_sequence is not None and after_sequence >= up_to_sequence:
        return None
    # Without a limit a page of 1 would do for a reader that stops early; with one it is never asked past it.
    size = PAGE_MAX if up_to_sequence is None else min(PAGE_MAX, up_to_sequence - after_sequence)
    return asyncio.create_task(_page(connection, stream, subject or ">", after_sequence + 1, size))


async def _page(connection: Connection, stream: str, subject: str, first_sequence: int, size: int) -> _Page:
    request = {"seq": first_sequence, "next_by_subj": subject, "batch": size, "max_bytes": PAGE_BYTES}
    try:
        answers, end = await connection.ask_page(
            f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(request), timeout_s=PAGE_S
        )
    except RequestError as error:
        raise LogUnavailable(f"reading {stream}: {error}") from error
    if end.status == NOT_FOUND:
        return [], 0
    page = [_delivery(*answer) for answer in answers]
    if end.status != END_OF_PAGE or not page or end.headers.get("Nats-Last-Sequence") != str(page[-1].sequence):
        raise LogUnavailable(f"reading {stream}: the page ended with {dict(end.headers)}")
    return page, int(end.headers["Nats-Num-Pending"])


def _delivery(data: bytes, block: bytes) -> Delivery:
    """The block is read once and by hand: of a history that is read whole, headers were half of the work."""
    stream, subject, sequence, stored_at, headers = frames.stored_of(block)
    return Delivery(stream, sequence, subject, data, headers, stored_at)
