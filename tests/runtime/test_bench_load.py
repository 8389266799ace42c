"""The load generator: what it charges to whom, what it counts, and that its figures survive merging and writing."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hdrh.histogram import HdrHistogram
from typer.testing import CliRunner, Result

from runtime.bench.adapter import AdapterSpec, Op
from runtime.bench.adapters import find_adapter, load_adapter
from runtime.bench.driver import work
from runtime.bench.errors import AdapterError, BenchError
from runtime.bench.histogram import Histogram, Percentiles, percentiles
from runtime.bench.load import Arrival, Load, Measure
from runtime.bench.mark import now_us
from runtime.bench.outcome import Outcome, Second, of_processes
from runtime.bench.population import evenly, of_sizes, one_group
from runtime.bench.profiles import PROFILES
from runtime.bench.running import works
from runtime.cli import app
from tests.running import Running

STALLING = "tests.runtime.stalling:StallingAdapter"
PNG = b"\x89PNG\r\n\x1a\n"


async def at_once() -> int:
    return now_us()


async def loaded(load: Load, **options: object) -> Outcome:
    """Load on an adapter of this test's, four users in one group."""
    spec = AdapterSpec("stalling", STALLING, options)
    seats = await load_adapter(spec).prepare("run", 4, [[0, 1, 2, 3]])
    [plan] = works(spec, load, [[0, 1, 2, 3]], seats)
    return of_processes([await work(plan, at_once)])


async def test_the_open_loop_charges_a_stall_to_every_message_that_was_due() -> None:
    outcome = await loaded(Load(rate=100, seconds=1, warmup_s=0), url="0.5")
    waited = sum(count for us, count in outcome.of(Measure.ACK).counts.items() if us > 100_000)
    assert outcome.due == outcome.of(Measure.ACK).count == 100
    assert waited >= 39  # of about 50 that were due in the stall, all but those of its last 0.1 s
    assert outcome.of(Measure.ACK).percentiles().max >= 490


async def test_the_closed_loop_asks_a_server_that_stalls_for_less() -> None:
    outcome = await loaded(Load(closed=2, seconds=1, warmup_s=0), url="0.5")
    assert sum(count for us, count in outcome.of(Measure.ACK).counts.items() if us > 100_000) == 2


async def test_warm_up_counts_for_nothing() -> None:
    outcome = await loaded(Load(rate=100, seconds=0.5, warmup_s=0.5), url="0.2")  # the stall is in the warm-up
    assert outcome.due == outcome.of(Measure.ACK).count == 50


async def test_every_session_must_be_given_everything_once() -> None:
    whole = await loaded(Load(rate=100, seconds=0.5, warmup_s=0))
    assert (whole.missed, whole.doubled, whole.disordered) == (0, 0, 0)
    assert whole.of(Measure.DELIVERY).count == 4 * whole.due
    assert (await loaded(Load(rate=100, seconds=0.5, warmup_s=0), lose=7)).missed == 4
    assert (await loaded(Load(rate=100, seconds=0.5, warmup_s=0), twice=7)).doubled == 4


async def test_the_last_message_is_missed_too() -> None:
    outcome = await loaded(Load(rate=10, seconds=0.45, warmup_s=0, drain_s=0.2), lose=5)
    assert (outcome.due, outcome.missed) == (5, 4)


def test_processes_share_the_rate_and_a_seed_repeats_it() -> None:
    constant = Load(rate=10)
    shared = sorted([*islice(constant.dues_us(0, 2), 3), *islice(constant.dues_us(1, 2), 3)])
    assert shared == list(islice(constant.dues_us(0, 1), 6)) == [0, 100_000, 200_000, 300_000, 400_000, 500_000]
    poisson = Load(rate=10, arrival=Arrival.POISSON, seed=7)
    first = list(islice(poisson.dues_us(0, 1), 10_000))
    assert first == list(islice(poisson.dues_us(0, 1), 10_000))
    assert first != list(islice(poisson.dues_us(1, 1), 10_000))
    assert first[-1] / 10_000 == pytest.approx(100_000, rel=0.05)


def test_histograms_keep_three_digits_and_add_up() -> None:
    even, odd, whole = Histogram(), Histogram(), Histogram()
    for value in range(10, 300_000, 10):
        (odd if value % 20 else even).record(value)
        whole.record(value)
    even.add(odd)
    assert even.counts == whole.counts
    assert whole.percentiles().count == 29_999
    assert whole.percentiles().p50 == pytest.approx(150, rel=0.001)
    assert whole.percentiles().p99 == pytest.approx(297, rel=0.001)
    assert HdrHistogram.decode(whole.encoded()).get_value_at_percentile(50) == pytest.approx(150_000, rel=0.001)


def test_percentiles_are_in_milliseconds() -> None:
    found = percentiles(number / 1000 for number in range(100, 0, -1))
    assert found.count == 100
    assert found.p50 == pytest.approx(50, rel=0.001)
    assert found.p90 == pytest.approx(90, rel=0.001)
    assert percentiles([0.0025]).p99 == pytest.approx(2.5, rel=0.001)
    assert percentiles([]) == Percentiles(count=0, mean=0, p50=0, p90=0, p99=0, p999=0, max=0)


def test_a_message_is_complete_when_the_last_process_has_it() -> None:
    first, second = Outcome(seconds=1, series=[Second()]), Outcome(seconds=1, series=[Second()])
    first.last, second.last = {7: (0, 500), 8: (0, 20)}, {7: (0, 100), 8: (0, 900)}
    assert of_processes([first, second]).of(Measure.LAST).counts == {500: 1, 900: 1}


def test_what_was_never_acked_is_not_missed() -> None:
    sender, listener = Outcome(seconds=1), Outcome(seconds=1)
    sender.void.add(7)
    listener.missing.update([7, 8])
    assert of_processes([sender, listener]).missed == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nonesuch", "there is no adapter 'nonesuch'"),
        ("no.such.module:Thing", "cannot import no.such.module"),
        ("tests.runtime.stalling:Nothing", "there is no Nothing in tests.runtime.stalling"),
        ("tests.runtime.stalling:NoAdapter", "is no adapter: it has no prepare, connect"),
    ],
)
def test_what_is_no_adapter_is_told(name: str, words: str) -> None:
    with pytest.raises(AdapterError, match=words):
        find_adapter(name, {})


def test_an_adapter_that_takes_no_such_option_is_told() -> None:
    with pytest.raises(AdapterError, match="cannot be made"):
        load_adapter(AdapterSpec("stalling", STALLING, {"colour": "red"}))


def test_people_are_spread_over_processes() -> None:
    even = evenly(10, 4, 2)
    assert [len(group) for group in even.groups] == [3, 3, 2, 2]
    assert sorted(user for users in even.connected for user in users) == list(range(10))
    assert one_group(10, 5, 2).connected == [[0, 2, 4], [1, 3]]
    mixed = of_sizes(20, 6, (2, 5, 100), 2, seed=1)
    assert [len(group) for group in mixed.groups] == [2, 2, 5, 5, 10, 10]
    assert all(set(group) <= set(mixed.connected[number % 2]) for number, group in enumerate(mixed.groups))
    for users, groups, processes in ((3, 4, 1), (4, 2, 3)):
        with pytest.raises(BenchError):
            evenly(users, groups, processes)
    with pytest.raises(BenchError):
        one_group(4, 5, 1)


def bench(running: Running, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["bench", *arguments, "--data-dir", str(running.data_dir)])


SMALL: dict[str, tuple[str, ...]] = {
    "send": ("--users", "6", "--groups", "2", "--rate", "40", "--arrival", "poisson"),
    "fanout": ("--users", "6", "--processes", "2"),
    "large-group": ("--users", "30", "--connected", "5", "--rate", "10"),
    "reconnect": ("--users", "6", "--groups", "2", "--closed", "2"),
    "idle": ("--users", "6", "--groups", "2"),
    "mixed": ("--users", "12", "--groups", "4", "--rate", "40"),
}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_on_a_real_server(running: Running, profile: str) -> None:
    ran = bench(running, profile, *SMALL[profile], "--duration", "0.6", "--warm-up", "0.1", "--json", "-")
    assert ran.exit_code == 0, ran.output
    document: dict[str, Any] = json.loads(ran.stdout)
    [figures] = document["reports"]
    assert document["bench"] == profile
    assert document["parameters"]["users"] == int(SMALL[profile][1])
    assert document["machine"]["python"]
    assert (figures["missed"], figures["doubled"], figures["disordered"]) == (0, 0, 0)
    assert figures["sessions"] > 0
    if Op.SEND in PROFILES[profile].mix:
        histogram = HdrHistogram.decode(figures["histograms"]["send → ack"])
        assert histogram.get_total_count() == figures["latency_ms"]["send → ack"]["count"] > 0
    assert figures["headline"] in figures["latency_ms"] or profile == "idle"
    assert profile != "idle" or "riverrun" in figures["memory_kib_per_session"]


def test_a_picture_is_a_png(tmp_path: Path) -> None:
    picture = tmp_path / "figures.png"
    few = ("--users", "2", "--groups", "1", "--rate", "100", "--duration", "0.2", "--warm-up", "0")
    ran = CliRunner().invoke(app, ["bench", "send", "--adapter", STALLING, *few, "--plot", str(picture)])
    assert ran.exit_code == 0, ran.output
    assert picture.read_bytes().startswith(PNG)


def test_servers_are_compared_side_by_side(running: Running, tmp_path: Path) -> None:
    ran = bench(
        running, "compare", "--adapters", "riverrun,nats", "--users", "4", "--groups", "2", "--rate", "40",
        "--rounds", "2", "--duration", "0.3", "--warm-up", "0.1", "--json", str(tmp_path / "figures.json"),
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    assert "riverrun / nats" in ran.stdout
    document = json.loads((tmp_path / "figures.json").read_text())
    assert {name: len(rounds) for name, rounds in document["rounds"].items()} == {"riverrun": 2, "nats": 2}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("send", "--rate", "5", "--closed", "5"), "give one of them"),
        (("send", "--users", "2", "--groups", "5"), "2 users cannot fill 5 groups"),
        (("send", "--adapter", "nats", "--target", "nats=nats://127.0.0.1:1"), "nats-server at 127.0.0.1:1"),
        (("send", "--adapter", "xmpp", "--target", "xmpp=xmpp://127.0.0.1:1"), "cannot reach an XMPP server"),
        (("mixed", "--adapter", "nats"), "cannot do what this profile asks: read"),
        (("compare", "--adapters", "riverrun"), "two or more"),
        (("send", "--url", "http://127.0.0.1:1"), "cannot reach"),
        (("send", "--url", "127.0.0.1:8080"), "is not a server's URL; expected http://host:port"),
        (("send", "--adapter", "xmpp", "--target", "xmpp=http://127.0.0.1:1"), "is no URL of an XMPP server"),
        (("send", "--adapter", "nats", "--target", "nats=127.0.0.1"), "is no URL of a NATS server"),
    ],
)
def test_what_cannot_be_is_one_plain_line(running: Running, arguments: tuple[str, ...], words: str) -> None:
    assert_one_plain_line(bench(running, *arguments), words)


def test_a_wrong_secret_is_one_plain_line(running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "jwt.secret"
    secret.write_text("another " * 8)
    monkeypatch.setenv("RIVERRUN_JWT_SECRET_FILE", str(secret))
    ran = bench(running, "send", "--users", "2", "--groups", "1")
    assert_one_plain_line(ran, "unauthenticated")
    assert "another" not in ran.output


def assert_one_plain_line(ran: Result, words: str) -> None:
    assert ran.exit_code == 2, ran.output
    assert words in ran.stderr
    assert ran.stderr.startswith("riverrun: ")
    assert ran.stderr.count("\n") == 1
