"""The soak's short form: `make soak` is the long one."""

from pathlib import Path

from tests.soak.course import soak
from tests.soak.population import Plan
from tests.soak.report import show


async def test_clients_have_what_the_log_has_though_gateways_are_killed_and_valkey_is_flushed(tmp_path: Path) -> None:
    plan = Plan(
        seconds=12,
        clients=60,
        conversations=20,
        largest=200,
        rate=30,
        kill_every_s=5,
        stay_s=6,
        processes=1,
    )
    report, catch_up, verdict, tally = await soak(plan, tmp_path, lambda _: None)
    show(report, catch_up, verdict, tally)
    assert (report.lost, report.doubled, report.wrong) == (0, 0, 0), verdict.findings
    assert report.passed
    assert report.kills == 2
    assert report.posted >= report.acked > 0  # who has just been removed is refused
    assert report.deliveries > report.events
    assert report.recovered > 0
    assert report.reset == report.spoilt > 0  # some cursors are cut on purpose; all others are good for what was missed
    # Nothing was ever lost on the way to a user's own sessions, which a false alarm would say.
    assert [what for what in tally.errors if "own events" in what] == []
