"""JetStream's JSON API over requests, and its answers as values or errors."""

from typing import Any

import msgspec

from streams.jetstream.connection import Connection, RequestError
from streams.ports import LogUnavailable

API_S = 5.0  # making a replicated stream takes a while
# Without a leader nobody answers, ever: then it is better to ask again soon.
LOOK_S = 1.0  # for what only reads
MAKE_S = 2.0  # for what is made quickly, and may be asked for twice

NO_CONSUMER = 10014
NO_MESSAGE = 10037
NO_STREAM = 10059
STREAM_DIFFERS = 10058  # the name is in use with another configuration

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode  # Any: the API's own shapes, of which we read a few fields


class ApiError(LogUnavailable):
    """JetStream refused. Callers handle the codes they expect; any other means the log cannot be used now."""

    def __init__(self, subject: str, err_code: int, description: str) -> None:
        super().__init__(f"{subject}: {description} ({err_code})")
        self.err_code = err_code


async def call(connection: Connection, subject: str, body: Any = None, *, timeout_s: float = API_S) -> dict[str, Any]:
    """Ask `$JS.API.<subject>`.

    Raises:
        ApiError: it answered with an error. LogUnavailable: it did not answer, or nobody is there.
    """
    request = b"" if body is None else _encode(body)
    try:
        answer = _decode((await connection.ask(f"$JS.API.{subject}", request, timeout_s=timeout_s)).data)
    except RequestError as error:
        raise LogUnavailable(f"{subject}: {error}") from error
    if failure := answer.get("error"):
        raise ApiError(subject, failure.get("err_code", 0), failure.get("description", ""))
    return answer
