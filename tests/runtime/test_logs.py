"""Logging: one form for us and for libraries, and no secrets in it."""

import json
import logging
import subprocess
import sys

import structlog

from runtime import logs

SPEAKER = """
import logging, structlog
from runtime import logs
logs.configure(level="info", form="FORM")
structlog.contextvars.bind_contextvars(correlation_id="c-1")
structlog.get_logger("ours").info("hello", url="nats://u:hidden@host", token="hidden")
logging.getLogger("theirs").warning("calling %s", "postgresql://u:hidden@host/db")
logging.getLogger("theirs").debug("not shown")
logging.getLogger("uvicorn.access").info("not shown")
try:
    raise ValueError("redis://:hidden@host")
except ValueError:
    structlog.get_logger("ours").exception("went wrong")
"""


def spoken(form: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", SPEAKER.replace("FORM", form)], capture_output=True, text=True, check=True
    )
    assert result.stdout == ""
    return result.stderr


def test_json_lines_carry_context_and_no_secrets() -> None:
    output = spoken("json")
    ours, theirs, error = (json.loads(line) for line in output.splitlines())
    assert ours["event"] == "hello"
    assert ours["correlation_id"] == theirs["correlation_id"] == "c-1"
    assert (ours["logger"], theirs["logger"], theirs["level"]) == ("ours", "theirs", "warning")
    assert theirs["event"] == "calling postgresql://u:***@host/db"
    assert "ValueError" in error["exception"]
    assert "hidden" not in output


def test_text_lines_say_the_same() -> None:
    output = spoken("text")
    assert "hello" in output
    assert "calling postgresql://u:***@host/db" in output
    assert "not shown" not in output


def test_tokens_are_hidden_in_whatever_is_said() -> None:
    event = logs.hide_secrets(None, "info", {"event": "header Authorization: Bearer abc.def-_g", "ticket": "t", "n": 1})
    assert event == {"event": "header Authorization: Bearer ***", "ticket": "***", "n": 1}


def test_configuring_twice_says_everything_once() -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logs.configure(level="info", form="json")
        logs.configure(level="info", form="json")
        assert len(root.handlers) == 1
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
