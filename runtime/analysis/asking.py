"""Asking the archive in SQL through the public door, as `riverrun sql` and `riverrun chart` do."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx

from runtime.client.errors import ApiError, ConnectionLost
from runtime.tokens import mint

USER: Final = "riverrun-sql"
TOKEN_TTL_S: Final = 300
TIMEOUT_S: Final = 600.0  # the server ends a statement long before


@dataclass(frozen=True, slots=True)
class Rows:
    """An answer in memory: names, ClickHouse's types, and rows of what JSON made of them."""

    names: list[str]
    types: list[str]
    rows: list[list[Any]]


class Asking:
    """One server, as one who may ask.

    Args:
        jwt_secret: the deployment's, which each question's token is minted with.
    """

    def __init__(self, url: str, jwt_secret: str) -> None:
        self._url = url
        self._secret = jwt_secret

    @contextmanager
    def answered(self, sql: str, form: str, parameters: Mapping[str, str] | None = None) -> Iterator[Iterator[bytes]]:
        """The answer in a form (`ndjson`, `table`, `csv`, `parquet`, `arrow`), in pieces.

        Raises:
            ApiError: the server refuses, in ClickHouse's words. ConnectionLost: no answer, or not all of it.
        """
        token = mint(USER, ttl_s=TOKEN_TTL_S, admin=False, analyst=True, secret=self._secret)
        body = {"sql": sql, "parameters": dict(parameters or {}), "format": form}
        try:
            with httpx.stream(
                "POST",
                f"{self._url}/v1/sql",
                json=body,
                headers={"Authorization": f"Bearer {token}"},
                timeout=TIMEOUT_S,
                trust_env=False,
            ) as response:
                if response.status_code != 200:
                    raise ApiError.of(_document(response.read()), status=response.status_code)
                yield response.iter_bytes()
        except httpx.HTTPError as error:
            raise ConnectionLost(f"{self._url} does not answer: {error}") from error

    def rows(self, sql: str, parameters: Mapping[str, str] | None = None) -> Rows:
        """The answer as rows.

        Raises:
            ApiError, ConnectionLost.
        """
        with self.answered(sql, "table", parameters) as pieces:
            lines = b"".join(pieces).splitlines()
        names, types, *rows = [json.loads(line) for line in lines] or [[], []]
        return Rows(names, types, rows)


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
