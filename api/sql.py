"""The analysts' door: one statement of SQL over the archive, read only and under limits."""

import asyncio
import re
from collections.abc import Coroutine
from typing import Any, Final

import structlog
from msgspec import UNSET
from starlette.requests import ClientDisconnect

from api.analysts import FORMS, Answered, form_of
from api.endpoint import Call, Document, Endpoint
from api.schema import SqlRequest
from domain.errors import Forbidden, Invalid, Unavailable

log = structlog.get_logger(__name__)

_PARAMETER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


async def ask_sql(call: Call[None, SqlRequest]) -> Document:
    if not call.principal.analyst:
        raise Forbidden("a token with the scope analyst or admin is expected")
    analysts = call.context.analysts
    if analysts is None:
        raise Unavailable("no ClickHouse is set up for analysts here")
    for name in call.body.parameters:
        if not _PARAMETER.fullmatch(name):
            raise Invalid("a parameter's name has letters, digits and _", field="parameters")
    form = form_of(call.accept) if call.body.format is UNSET else FORMS[call.body.format]
    answered = await _unless_gone(call, analysts.ask(call.body.sql, call.body.parameters, form))
    size_bytes = answered.size_bytes
    log.info("an analyst was answered", user_id=call.principal.user_id, size_bytes=size_bytes)
    headers = {"Content-Length": size_bytes} if size_bytes else {}
    return Document(answered.pieces(), form.media_type, headers, answered.close)


async def _unless_gone(call: Call[None, SqlRequest], asking: Coroutine[Any, Any, Answered]) -> Answered:
    """What is answered. When the client is gone, ClickHouse's connection is closed, which ends the statement there."""
    tasks = asyncio.ensure_future(asking), asyncio.ensure_future(call.gone())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientDisconnect
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()


ENDPOINTS: Final = (
    Endpoint(
        "POST",
        "/v1/sql",
        ask_sql,
        "Ask the archive in SQL. For tokens with the scope `analyst` or `admin`.",
        {200: (Any, "The rows, whole: as lines of JSON, CSV, Parquet or an Arrow stream.")},
        body=SqlRequest,
        errors=("forbidden",),
        example={
            "sql": "SELECT count() FROM messages WHERE sender_id = {user:String}",
            "parameters": {"user": "alice"},
        },
        forms=tuple(form.media_type for form in FORMS.values()),
    ),
)
