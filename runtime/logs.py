"""Logging: structlog for our own, and what libraries say through `logging`, in one form on stderr.

Text on a terminal, a JSON object a line elsewhere. Context bound with `structlog.contextvars` (a request's
correlation id) is on every line. What could be a secret is never shown: the values of telling keys, passwords in URLs.
"""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog
from structlog.typing import Processor

from runtime.settings import masked

SECRET_KEYS = frozenset({"token", "ticket", "password", "secret", "authorization", "jwt", "cursor"})
BEARER = re.compile(r"(?i)(bearer\s+)[\w.~+/=-]+")

# Libraries that tell every request or reconnect at `info`; of those we tell ourselves what matters.
QUIET_LOGGERS = ("alembic", "uvicorn.access", "httpx", "httpcore", "asyncio", "clickhouse_connect", "nats")


def configure(*, level: str, form: str) -> None:
    """Set up logging for this process. Idempotent.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        form: `text`, `json`, or `auto` for text on a terminal.
    """
    is_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if is_text else "iso", utc=not is_text),
        structlog.processors.StackInfoRenderer(),
        hide_secrets,
    ]
    # A traceback with local variables would show what the secrets' keys hide.
    form_errors: list[Processor] = [] if is_text else [structlog.processors.format_exc_info, hide_secrets]
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
        )
        if is_text
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *form_errors, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


def hide_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """A log line without secrets."""
    for key, value in event.items():
        if key.lower() in SECRET_KEYS:
            event[key] = "***"
        elif isinstance(value, str):
            event[key] = BEARER.sub(r"\1***", masked(value))
    return event
