"""What the API counts, for Prometheus; and how all that this process counts is shown."""

from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Histogram, generate_latest
from starlette.responses import Response

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})

_REQUESTS = Counter("riverrun_http_requests_total", "HTTP requests answered", ["method", "path", "status"])
_SECONDS = Histogram(
    "riverrun_http_request_seconds",
    "Time from the head of a request to the end of its response",
    ["method", "path"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)


def observe(method: str, path: str | None, status: int, seconds: float) -> None:
    """Count a request. `path` is its template, `None` when it has none: labels stay few whatever clients send."""
    method = method if method in METHODS else "other"
    path = path or "unknown"
    _REQUESTS.labels(method, path, status).inc()
    _SECONDS.labels(method, path).observe(seconds)


def exposition() -> Response:
    """Everything in the registry, in Prometheus' text format."""
    return Response(generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})
