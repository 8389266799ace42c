"""The short form of the fault matrix: `make faults` is the long one."""

import sys
from pathlib import Path

from tests.faults.check import show
from tests.faults.matrix import run
from tests.faults.schedule import CASES, MEDLEY


async def test_every_acked_message_is_there_whatever_is_killed_held_back_and_frozen(tmp_path: Path) -> None:
    def say(text: str) -> None:
        sys.stdout.write(text + "\n")

    [result] = await run([MEDLEY], tmp_path, tmp_path / "recordings", seed=1, scale=1, rate=100, say=say)
    show(result.verdict)
    assert result.verdict.passed, result.verdict.findings
    assert len(result.hit) == 8
    assert result.verdict.counts["acked"] > 1_000
    assert result.verdict.counts["deliveries"] > result.verdict.counts["acked"]
    assert result.again_s < float("inf")  # every partition took messages again


def test_a_schedule_follows_from_its_seed() -> None:
    for case in (*CASES.values(), MEDLEY):
        first, again = (case.schedule(3, scale=1, partitions=4) for _ in range(2))
        assert first == again
        assert all(step.after_s >= 0 for step in first)
        others = [case.schedule(seed, scale=1, partitions=4) for seed in range(4, 8)]
        assert any(other != first for other in others), case.name
        shorter = case.schedule(3, scale=0.1, partitions=4)
        assert 0 < len(shorter) <= len(first)
        assert sum(step.for_s for step in shorter) <= sum(step.for_s for step in first)
