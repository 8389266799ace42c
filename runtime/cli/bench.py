"""`riverrun bench`: load on a running server from outside, and what came of it."""

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from runtime.bench import comparison, tables
from runtime.bench.adapter import AdapterSpec
from runtime.bench.adapters import find_adapter
from runtime.bench.errors import BenchError
from runtime.bench.load import Arrival, Load
from runtime.bench.machine import machine
from runtime.bench.mark import SIZE_MIN
from runtime.bench.outcome import Outcome, of_rounds
from runtime.bench.plot import plot, require_plot
from runtime.bench.profiles import PROFILES, Profile
from runtime.bench.report import Report, whole_json
from runtime.bench.running import Prepared, prepare
from runtime.cli import fail
from runtime.cli.target import DEFAULT_DATA_DIR, RUN_RECORD, resolve_target
from runtime.client import ClientError

STDOUT: Final = "-"

app = typer.Typer(
    help="Put load on a running server and measure it.\n\n"
    "Open loop (--rate): operations are due at a rate whatever the server does, and every latency counts from when one "
    "was due, so a server that stalls is charged for all that waited. Closed loop (--closed, or neither): so many are "
    "under way at once, and the next begins when one completes: that finds out how much goes through, and says little "
    "of latency. docs/benchmarking.md tells more.",
    no_args_is_help=True,
)

Users = Annotated[int, typer.Option(help="Users who take part.", min=1, max=100_000)]
Groups = Annotated[int, typer.Option(help="Groups they are in.", min=1, max=100_000)]
Connected = Annotated[int | None, typer.Option(help="Of one group: the members with a session; else all.", min=1)]
Rate = Annotated[float | None, typer.Option(help="Open loop: operations due a second.", min=0.01)]
Closed = Annotated[int | None, typer.Option(help="Closed loop: operations under way at once.", min=1)]
Arrive = Annotated[Arrival, typer.Option(help="Open loop: evenly, or at random with the same mean.")]
Duration = Annotated[float, typer.Option(help="Seconds that are measured.", min=0.1)]
WarmUp = Annotated[float, typer.Option(help="Seconds of load before, which count for nothing.", min=0)]
Size = Annotated[int, typer.Option(help="Characters a message.", min=SIZE_MIN, max=8192)]
Processes = Annotated[int, typer.Option(help="Processes that make the load.", min=1, max=32)]
Seed = Annotated[int, typer.Option(help="What is random is repeated with it.")]
JsonFile = Annotated[
    str | None, typer.Option("--json", help="Write the figures as JSON: a file, or - for stdout alone.")
]
PlotFile = Annotated[Path | None, typer.Option("--plot", help="Draw them: a PNG file.")]
AdapterName = Annotated[str, typer.Option("--adapter", help="riverrun, nats, xmpp, or package.module:Class.")]
Targets = Annotated[
    list[str] | None, typer.Option("--target", help="Where an adapter's server is, NAME=URL. May be repeated.")
]
Pids = Annotated[
    list[str] | None, typer.Option("--pid", help="A process of an adapter's server, NAME=PID. May be repeated.")
]
Url = Annotated[str | None, typer.Option("--url", help="Riverrun, http://host:port; by default that of --data-dir.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="The data dir of a local Riverrun.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What the command line asks for."""

    profile: Profile
    users: int
    groups: int
    connected: int | None
    rate: float | None
    closed: int | None
    arrival: Arrival
    duration: float
    warm_up: float
    size: int
    processes: int
    seed: int
    json_file: str | None
    plot_file: Path | None
    targets: Mapping[str, str]
    pids: Mapping[str, int]
    url: str | None
    data_dir: Path | None

    def load(self) -> Load:
        """The load."""
        if self.rate is not None and self.closed is not None:
            fail("--rate is the open loop and --closed the closed one: give one of them")
        profile = self.profile
        return Load(
            mix=profile.mix,
            rate=self.rate if self.closed is None and self.rate is not None else self._default_rate(),
            closed=self.closed or profile.closed,
            arrival=self.arrival,
            seconds=self.duration,
            warmup_s=self.warm_up,
            size=self.size,
            seed=self.seed,
            processes=self.processes,
            headline=profile.headline,
            posters=profile.posters,
        )

    def _default_rate(self) -> float | None:
        return None if self.closed is not None else self.profile.rate

    def parameters(self, load: Load) -> dict[str, Any]:
        """What a reader needs to repeat it."""
        return {
            "users": self.users,
            "groups": self.groups,
            "connected": self.connected,
            "rate": load.rate,
            "arrival": load.arrival.value if load.rate else None,
            "closed": load.closed if load.rate is None and load.mix else None,
            "duration_s": self.duration,
            "warm_up_s": self.warm_up,
            "size": self.size,
            "processes": self.processes,
            "seed": self.seed,
        }

    def spec(self, name: str) -> AdapterSpec:
        """An adapter with what it is to be called with."""
        bare = name.rpartition(":")[2] if ":" in name else name
        options: dict[str, Any] = {}
        if bare in self.targets:
            options["url"] = self.targets[bare]
        if name == "riverrun":
            options |= self._riverrun(options.get("url") or self.url)
        elif name == "nats" and "url" not in options:
            options |= self._nats()
        if bare in self.pids:
            options["server_pids"] = {bare: self.pids[bare]}
        return find_adapter(name, options)

    def _riverrun(self, url: str | None) -> dict[str, Any]:
        target = resolve_target(url, self.data_dir)
        pid = _run_record(self.data_dir).get("pid") if url is None else None
        return {
            "url": target.url,
            "jwt_secret": target.jwt_secret,
            "server_pids": {"riverrun": pid} if isinstance(pid, int) else {},
        }

    def _nats(self) -> dict[str, Any]:
        """The nats-server of the local Riverrun, so that the floor is that of the very same server."""
        record = _run_record(self.data_dir)
        pid = record.get("pids", {}).get("nats-server")
        return {
            "url": resolve_target(self.url, self.data_dir).nats_url,
            "server_pids": {"nats-server": pid} if isinstance(pid, int) else {},
        }


def _run_record(data_dir: Path | None) -> dict[str, Any]:
    """What `riverrun up` wrote of itself, if it did."""
    try:
        record: dict[str, Any] = json.loads(((data_dir or DEFAULT_DATA_DIR) / RUN_RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return record


def _command(profile: Profile) -> Callable[..., None]:
    """The command of a profile, with its defaults."""

    def command(
        *,
        users: Users = profile.users,
        groups: Groups = profile.groups,
        connected: Connected = profile.connected,
        rate: Rate = None,
        closed: Closed = None,
        arrival: Arrive = Arrival.CONSTANT,
        duration: Duration = 10,
        warm_up: WarmUp = 2,
        size: Size = 100,
        processes: Processes = 1,
        seed: Seed = 1,
        json_file: JsonFile = None,
        plot_file: PlotFile = None,
        adapter: AdapterName = "riverrun",
        target: Targets = None,
        pid: Pids = None,
        url: Url = None,
        data_dir: DataDir = None,
    ) -> None:
        ask = Ask(
            profile=profile, users=users, groups=groups, connected=connected, rate=rate, closed=closed,
            arrival=arrival, duration=duration, warm_up=warm_up, size=size, processes=processes, seed=seed,
            json_file=json_file, plot_file=plot_file, targets=_pairs("--target", target),
            pids=_numbers(_pairs("--pid", pid)), url=url, data_dir=data_dir,
        )  # fmt: skip
        _run(ask, [adapter], rounds=1)

    return command


for _profile in PROFILES.values():
    app.command(_profile.name, help=_profile.help)(_command(_profile))


@app.command("compare")
def compare(
    *,
    adapters: Annotated[str, typer.Option(help="Two or more, by commas; ratios are of the first to each other.")],
    profile: Annotated[str, typer.Option(help=f"One of {', '.join(PROFILES)}.")] = "send",
    rounds: Annotated[int, typer.Option(help="Of each server, in turn.", min=1, max=20)] = 3,
    users: Annotated[int | None, typer.Option(help="As of the profile.", min=1, max=100_000)] = None,
    groups: Annotated[int | None, typer.Option(help="As of the profile.", min=1, max=100_000)] = None,
    connected: Connected = None,
    rate: Rate = None,
    closed: Closed = None,
    arrival: Arrive = Arrival.CONSTANT,
    duration: Annotated[float, typer.Option(help="Seconds that are measured, of each round.", min=0.1)] = 5,
    warm_up: Annotated[float, typer.Option(help="Seconds of load before, in each round.", min=0)] = 1,
    size: Size = 100,
    processes: Processes = 1,
    seed: Seed = 1,
    json_file: JsonFile = None,
    plot_file: PlotFile = None,
    target: Targets = None,
    pid: Pids = None,
    url: Url = None,
    data_dir: DataDir = None,
) -> None:
    """Servers side by side in one run: rounds in turn, so that the machine's moods fall on all of them."""
    names = [name.strip() for name in adapters.split(",") if name.strip()]
    if len(names) < 2 or len(set(names)) < len(names):
        fail("--adapters takes two or more different ones, by commas: riverrun,nats,xmpp")
    if profile not in PROFILES:
        fail(f"--profile {profile!r} is none; there are {', '.join(PROFILES)}")
    chosen = PROFILES[profile]
    ask = Ask(
        profile=chosen, users=users or chosen.users, groups=groups or chosen.groups,
        connected=connected or chosen.connected, rate=rate, closed=closed, arrival=arrival, duration=duration,
        warm_up=warm_up, size=size, processes=processes, seed=seed, json_file=json_file, plot_file=plot_file,
        targets=_pairs("--target", target), pids=_numbers(_pairs("--pid", pid)), url=url, data_dir=data_dir,
    )  # fmt: skip
    _run(ask, names, rounds=rounds)


def _pairs(option: str, given: list[str] | None) -> dict[str, str]:
    pairs = {name: value for name, _, value in (one.partition("=") for one in given or ())}
    if not all(pairs.values()):
        fail(f"{option} takes NAME=VALUE, as in {option} xmpp=…")
    return pairs


def _numbers(pairs: Mapping[str, str]) -> dict[str, int]:
    try:
        return {name: int(value) for name, value in pairs.items()}
    except ValueError:
        fail("--pid takes NAME=PID, a number")


def _run(ask: Ask, names: list[str], *, rounds: int) -> None:
    console = Console(stderr=ask.json_file == STDOUT)
    load = ask.load()
    try:
        if ask.plot_file is not None:
            require_plot()
        specs = [ask.spec(name) for name in names]
        population = ask.profile.population(ask.users, ask.groups, ask.connected, ask.processes, ask.seed)
        with ExitStack() as stack:
            servers = []
            for spec in specs:
                servers.append(prepare(spec, load, population))
                stack.callback(servers[-1].tidy)
            outcomes = _outcomes(servers, rounds)
        reports = [server.report(of_rounds(outcomes[server.spec.name])) for server in servers]
        by_round = {server.spec.name: list(map(server.report, outcomes[server.spec.name])) for server in servers}
        _show(console, ask, load, reports, by_round)
        if ask.plot_file is not None:
            plot(ask.plot_file, _title(ask), reports)
    except (BenchError, ClientError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or 'the load generator'}: {error.strerror or error}")
    if not all(one.is_whole for one in reports):
        raise typer.Exit(1)


def _outcomes(servers: list[Prepared], rounds: int) -> dict[str, list[Outcome]]:
    progress = Console(stderr=True)
    outcomes: dict[str, list[Outcome]] = {server.spec.name: [] for server in servers}
    for number, server, outcome in comparison.interleaved(servers, rounds):
        if len(servers) > 1:
            progress.print(f"round {number + 1} of {rounds}: {server.spec.name}", highlight=False)
        outcomes[server.spec.name].append(outcome)
    return outcomes


def _title(ask: Ask) -> str:
    return f"riverrun bench {ask.profile.name}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def _show(console: Console, ask: Ask, load: Load, reports: list[Report], by_round: Mapping[str, list[Report]]) -> None:
    parameters, about = ask.parameters(load), machine()
    tables.show_machine(console, about)
    tables.show(console, _title(ask), reports, parameters)
    if len(reports) > 1:
        first, *others = by_round
        tables.show_ratios(
            console, first, {other: comparison.ratios(by_round[first], by_round[other]) for other in others}
        )
    if ask.json_file is None:
        return
    document = whole_json(
        profile=ask.profile.name,
        parameters=parameters,
        machine=about,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        reports=reports,
        rounds=by_round if len(reports) > 1 else None,
    )
    if ask.json_file == STDOUT:
        sys.stdout.write(document.decode())
    else:
        Path(ask.json_file).write_bytes(document)
