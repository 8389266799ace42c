"""Asking ClickHouse in SQL for an analyst, over its own HTTP interface, as a user who may only read.

Each statement is sent read only and with the limits that it may cost, whatever the user's profile says. An answer is
whole or an error: ClickHouse finishes before it begins to answer, and what it answers is passed on as it comes.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, NamedTuple

import httpx

from api.errors import RateLimited, StatementRefused
from domain.errors import Unavailable
from projections.archive.parameters import escaped

AT_ONCE: Final = 4  # statements of one process; one more is refused at once
CONNECT_S: Final = 3.0
GRACE_S: Final = 5.0  # beyond the time a statement may take, until ClickHouse counts as gone

# Of ClickHouse's codes (src/Common/ErrorCodes.cpp) those that are no fault of the statement: too many statements,
# connections; shutting down; and that it does not know us.
_NOT_THE_STATEMENT: Final = frozenset({202, 203, 209, 210, 236, 516})
_CODE: Final = "X-ClickHouse-Exception-Code"
_FORMAT: Final = "X-ClickHouse-Format"


class Form(NamedTuple):
    """A form of answers: what ClickHouse calls it, and what HTTP does."""

    format: str
    media_type: str


FORMS: Final[Mapping[str, Form]] = {
    "ndjson": Form("JSONEachRow", "application/x-ndjson"),
    "table": Form("JSONCompactEachRowWithNamesAndTypes", "application/vnd.riverrun.table+x-ndjson"),
    "csv": Form("CSVWithNames", "text/csv"),
    "parquet": Form("Parquet", "application/vnd.apache.parquet"),
    "arrow": Form("ArrowStream", "application/vnd.apache.arrow.stream"),
}


class Analysts:
    """Those who ask.

    Args:
        url: of ClickHouse, with user, password and database: `http://analyst:…@host:8123/riverrun`.
        limits: of each statement, as settings of ClickHouse.
    """

    def __init__(self, url: str, limits: Mapping[str, int]) -> None:
        parts = httpx.URL(url)
        self._address = parts.copy_with(userinfo=b"", path="/", query=None)
        self._given = {
            **{name: str(limit) for name, limit in limits.items()},
            "database": parts.path.strip("/") or "default",
            "wait_end_of_query": "1",
            "result_overflow_mode": "throw",
            "output_format_json_quote_64bit_integers": "1",  # ids are strings everywhere in the protocol
            "readonly": "1",
        }
        self._client = httpx.AsyncClient(
            auth=(parts.username, parts.password),
            timeout=httpx.Timeout(limits["max_execution_time"] + GRACE_S, connect=CONNECT_S),
            trust_env=False,
        )
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def ask(self, sql: str, parameters: Mapping[str, str], form: Form) -> "Answered":
        """The answer to a statement, to be closed when it was read or will not be.

        Raises:
            StatementRefused: in ClickHouse's words. RateLimited: others ask. Unavailable: ClickHouse does not answer.
        """
        if self._turns.locked():
            raise RateLimited(f"{AT_ONCE} statements run here already", retry_after_s=1)
        await self._turns.acquire()
        try:
            return Answered(await self._sent(sql, parameters, form), self._turns)
        except BaseException:
            self._turns.release()
            raise

    async def _sent(self, sql: str, parameters: Mapping[str, str], form: Form) -> httpx.Response:
        given = {f"param_{name}": escaped(value) for name, value in parameters.items()}
        request = self._client.build_request(
            "POST",
            self._address,
            params={**given, **self._given, "default_format": form.format},
            content=sql.encode(),
            headers={"Accept-Encoding": "identity"},
        )
        try:
            response = await self._client.send(request, stream=True)
            if response.status_code == 200 and _CODE not in response.headers:
                if response.headers.get(_FORMAT, form.format) != form.format:
                    await response.aclose()
                    raise StatementRefused("the form of the answer is said in the request, not by FORMAT")
                return response
            said = " ".join((await response.aread()).decode(errors="replace").split())
        except (httpx.HTTPError, OSError) as error:
            raise Unavailable(f"ClickHouse does not answer: {type(error).__name__}") from error
        code = response.headers.get(_CODE, "")
        if not code.isdecimal() or int(code) in _NOT_THE_STATEMENT:
            raise Unavailable(f"ClickHouse cannot answer now: {said[:200]}")
        raise StatementRefused(said, clickhouse_code=int(code))


class Answered:
    """An answer, as it comes. It holds one of the turns until it is closed.

    Attributes:
        size_bytes: as ClickHouse says it, where it does.
    """

    def __init__(self, response: httpx.Response, turns: asyncio.Semaphore) -> None:
        self.size_bytes: str = response.headers.get("Content-Length", "")
        self._response = response
        self._turns: asyncio.Semaphore | None = turns

    def pieces(self) -> AsyncIterator[bytes]:
        """What is answered."""
        return self._response.aiter_raw()

    async def close(self) -> None:
        """Give the turn back. Idempotent."""
        if self._turns is not None:
            self._turns.release()
            self._turns = None
        await self._response.aclose()


def form_of(accept: str) -> Form:
    """The form that an `Accept` header asks for: the first it names, `ndjson` when it names none of them."""
    by_media_type: dict[str, Any] = {form.media_type: form for form in FORMS.values()}
    asked = (media_type.partition(";")[0].strip().lower() for media_type in accept.split(","))
    form: Form = next(
        (by_media_type[media_type] for media_type in asked if media_type in by_media_type), FORMS["ndjson"]
    )
    return form
