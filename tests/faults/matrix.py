"""The fault matrix: cases one after the other on one deployment, each with conversations and a verdict of its own."""

from collections.abc import Sequence
from pathlib import Path

from tests.faults.course import Course, Result, Say
from tests.faults.schedule import Case
from tests.faults.site import Site


async def run(
    cases: Sequence[Case], folder: Path, recordings: Path, *, seed: int, scale: float, rate: float, say: Say
) -> list[Result]:
    """Deploy, and run cases.

    Args:
        folder: for the deployment's data.
        recordings: for a folder a case, and the processes' logs.

    Raises:
        CannotMount: a case needs disks, and this machine cannot have them.
    """
    site = Site(folder, with_disks=any(case.needs_disks for case in cases))
    results = []
    try:
        say("starting the cluster")
        await site.start()
        for case in cases:
            course = Course(case, site, recordings / case.name, seed=seed, scale=scale, rate=rate, say=say)
            results.append(await course.run())
            counts = results[-1].verdict.counts
            say(f"{case.name}: {'passed' if results[-1].verdict.passed else 'FAILED'}, {counts['acked']:,} acked")
    finally:
        if (folder / "data" / "log").exists():
            site.keep_logs(recordings / "logs")
        await site.stop()
    return results
