"""Whether nats-server fsyncs before it acks: the promise that an acked event is never lost rests on it."""

import asyncio
import json
import urllib.request

TIMEOUT_S = 5.0


async def check_sync_always(monitoring_url: str) -> bool:
    """Whether the server says `sync_always` of its JetStream.

    Args:
        monitoring_url: of the server's HTTP monitoring, e.g. `http://127.0.0.1:8222`.

    Raises:
        OSError, ValueError: the monitoring does not answer, or answers something else.
    """
    return await asyncio.to_thread(_ask, monitoring_url)


def _ask(monitoring_url: str) -> bool:
    url = f"{monitoring_url.rstrip('/')}/jsz?config=true"
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"a monitoring URL starts with http:// or https://, not {monitoring_url}")
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310  # the scheme was checked
        answer = json.load(response)
    config = answer.get("config") if isinstance(answer, dict) else None
    return bool(config and config.get("sync_always"))
