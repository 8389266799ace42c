"""Whether nats-server fsyncs before it acks: the promise that an acked event is never lost rests on it."""

import asyncio
import json
import urllib.request

TIMEOUT_S = 5.0


async def check_sync_always(monitoring_url: str) -> bool:
    """Whether each server that answers says `sync_always` of its JetStream.

    Args:
        monitoring_url: of the server's HTTP monitoring, e.g. `http://127.0.0.1:8222`; of a cluster several, separated
            by commas.

    Raises:
        OSError, ValueError: no monitoring answers, or one answers something else.
    """
    urls = monitoring_url.split(",")
    answers = await asyncio.gather(*(asyncio.to_thread(_ask, url.strip()) for url in urls), return_exceptions=True)
    heard = []
    for answer in answers:
        if isinstance(answer, bool):
            heard.append(answer)
        elif not isinstance(answer, OSError):  # a server of the cluster may be down
            raise answer
    if not heard:
        raise next(answer for answer in answers if isinstance(answer, OSError))
    return all(heard)


def _ask(monitoring_url: str) -> bool:
    url = f"{monitoring_url.rstrip('/')}/jsz?config=true"
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"a monitoring URL starts with http:// or https://, not {monitoring_url}")
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310  # the scheme was checked
        answer = json.load(response)
    config = answer.get("config") if isinstance(answer, dict) else None
    return bool(config and config.get("sync_always"))
