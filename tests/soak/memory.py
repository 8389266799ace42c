"""Whether a process grows: what it has in RAM, sampled, and the slope of that once it has warmed up."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

SAMPLE_S = 2.0
WARM_UP = 0.4  # of the time: caches fill, pools open, the allocator finds its size
SAMPLES_MIN = 10


class Growth(msgspec.Struct, frozen=True):
    """Of one process that was not killed. KiB; a minute of the time after the warm-up."""

    name: str
    first_kib: int
    last_kib: int
    slope_kib_min: float


class Sampler:
    """Samples processes by name until it is told how they grew."""

    def __init__(self) -> None:
        self._samples: dict[tuple[str, int], list[tuple[float, int]]] = {}

    async def run(self, pids: Callable[[], Mapping[str, int | None]]) -> None:
        """Until cancelled. `pids`: of the processes, as they are when it is called."""
        clock = asyncio.get_running_loop().time
        while True:
            for name, pid in pids().items():
                rss_kib = _rss_kib(pid) if pid is not None else None
                if pid is not None and rss_kib is not None:
                    self._samples.setdefault((name, pid), []).append((clock(), rss_kib))
            await asyncio.sleep(SAMPLE_S)

    def growths(self) -> list[Growth]:
        """Of each process that lived long enough to say."""
        return [
            Growth(name, samples[0][1], samples[-1][1], round(_slope(samples[int(len(samples) * WARM_UP) :]) * 60, 1))
            for (name, _), samples in self._samples.items()
            if len(samples) >= SAMPLES_MIN
        ]


def _rss_kib(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/smaps_rollup").read_text().split()
    except OSError:
        return None  # killed
    return int(fields[fields.index("Rss:") + 1])


def _slope(samples: list[tuple[float, int]]) -> float:
    """The least squares line's, a second."""
    mean_s = sum(at_s for at_s, _ in samples) / len(samples)
    mean = sum(kib for _, kib in samples) / len(samples)
    spread = sum((at_s - mean_s) ** 2 for at_s, _ in samples)
    return sum((at_s - mean_s) * (kib - mean) for at_s, kib in samples) / spread if spread else 0.0
