"""The processes of the server under load, seen from outside: memory and CPU time, as the kernel counts them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pids: Mapping[str, int]) -> dict[str, int]:
    """Resident memory of those that live, by name."""
    found = {name: _read(pid, "statm") for name, pid in pids.items()}
    return {name: int(text.split()[1]) * PAGE_BYTES for name, text in found.items() if text}


def cpu_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """CPU time so far of those that live, user and system, by name."""
    found = {name: _read(pid, "stat") for name, pid in pids.items()}
    # After the name in brackets, which may hold spaces: fields 14 and 15 of the line, counted from 1.
    ticks = {name: text.rpartition(")")[2].split()[11:13] for name, text in found.items() if text}
    return {name: (int(user) + int(system)) / TICKS_PER_S for name, (user, system) in ticks.items()}


def _read(pid: int, file: str) -> str:
    try:
        return Path(f"/proc/{pid}/{file}").read_text()
    except OSError:
        return ""
