"""What a run has come to: the figures, what must be said beside them, and their JSON."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from runtime.bench.histogram import Histogram, Percentiles
from runtime.bench.load import Load, Measure
from runtime.bench.outcome import Outcome, Second

HELD: Final = 0.98  # of the rate: less is a rate that was not held
BUSY: Final = 0.9  # of a core: a process of the load that takes more is likely what limits
LATE_MS: Final = 10.0  # p99 of lateness beyond which latencies are more the generator's than the server's


class SecondFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One second of a run: what was completed and delivered in it, and how the operations fared that were due in it."""

    completed: int
    deliveries: int
    latency_ms: Percentiles


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one server in one run.

    Attributes:
        rate: operations a second that were asked for; `None` in the closed loop.
        completed_per_s: operations answered.
        acked_per_s: of which sends.
        latency_ms: by measure, from when an operation was due.
        headline: the measure that the profile is about.
        lateness_ms: how long after it was due the generator began an operation; part of every latency.
        generator_cores: CPU time of each process of the load, in cores; `server_cores`: of the server's processes.
        memory_kib_per_session: what the sessions added to the server's processes, where they are known and nothing else
            was done.
        histograms: by measure, HdrHistogram V2, values in microseconds.
        remarks: what a reader must know to believe the figures or not.
    """

    adapter: str
    server: Mapping[str, str]
    ack: str
    sessions: int
    seconds: float
    rate: float | None
    due: int
    completed: Mapping[str, int]
    completed_per_s: float
    acked_per_s: float
    deliveries_per_s: float
    bytes_per_delivery: float
    latency_ms: Mapping[str, Percentiles]
    headline: str
    errors: Mapping[str, int]
    unanswered: int
    not_begun: int
    missed: int
    doubled: int
    disordered: int
    lateness_ms: Percentiles
    generator_cores: Sequence[float]
    server_cores: Mapping[str, float]
    memory_kib_per_session: Mapping[str, float]
    histograms: Mapping[str, str]
    series: Sequence[SecondFigures]
    remarks: Sequence[str]

    @property
    def is_whole(self) -> bool:
        """Whether nothing was lost, doubled or out of turn."""
        return not (self.missed or self.doubled or self.disordered)


def report(
    outcome: Outcome,
    load: Load,
    *,
    adapter: str,
    server: Mapping[str, str],
    ack: str,
    memory_before: Mapping[str, int],
) -> Report:
    """The figures of an outcome."""
    seconds = outcome.seconds or 1.0
    completed = sum(outcome.completed.values())
    wall_s = outcome.wall_s or 1.0
    grown = {name: size - memory_before.get(name, size) for name, size in outcome.memory_bytes.items()}
    return Report(
        adapter=adapter,
        server=dict(server),
        ack=ack,
        sessions=outcome.sessions,
        seconds=outcome.seconds,
        rate=load.rate,
        due=outcome.due,
        completed=dict(outcome.completed),
        completed_per_s=round(completed / seconds, 1),
        acked_per_s=round(outcome.completed["send"] / seconds, 1),
        deliveries_per_s=round(outcome.deliveries / seconds, 1),
        bytes_per_delivery=round(outcome.received_bytes / max(1, outcome.deliveries), 1),
        latency_ms={measure.value: outcome.of(measure).percentiles() for measure in _measured(outcome)},
        headline=load.headline.value,
        errors=dict(outcome.errors),
        unanswered=outcome.unanswered,
        not_begun=outcome.not_begun,
        missed=outcome.missed,
        doubled=outcome.doubled,
        disordered=outcome.disordered,
        lateness_ms=outcome.lateness.percentiles(),
        generator_cores=[round(cpu_s / wall_s, 3) for cpu_s in outcome.cpu_s],
        server_cores={name: round(cpu_s / wall_s, 3) for name, cpu_s in outcome.server_cpu_s.items()},
        memory_kib_per_session={
            name: round(more / 1024 / outcome.sessions, 1)
            for name, more in grown.items()
            if outcome.sessions and not load.mix
        },
        histograms={measure.value: outcome.of(measure).encoded() for measure in _measured(outcome)},
        series=[_second(second) for second in outcome.series] if load.mix else [],
        remarks=_remarks(outcome, load, completed),
    )


def _measured(outcome: Outcome) -> list[Measure]:
    return [measure for measure in Measure if outcome.of(measure).counts]


def _second(second: Second) -> SecondFigures:
    return SecondFigures(
        completed=second.completed, deliveries=second.deliveries, latency_ms=second.latencies.percentiles()
    )


def _remarks(outcome: Outcome, load: Load, completed: int) -> list[str]:
    remarks = []
    busiest = max((cpu_s / (outcome.wall_s or 1.0) for cpu_s in outcome.cpu_s), default=0.0)
    busy = busiest >= BUSY
    late = _late(outcome.lateness)
    if load.mix and load.rate is not None and completed < HELD * load.rate * outcome.seconds:
        remarks.append(
            f"the rate was not held: {completed / outcome.seconds:,.1f} of {load.rate:,.1f} operations/s were completed"
            + ("" if busy or late else "; the load generator was in time, so the server was what limited")
        )
    if busy:
        remarks.append(
            f"the load generator was likely the bottleneck: one of its processes took {busiest:.2f} of a core; "
            "take more --processes, or cores it does not share with the server"
        )
    if late:
        remarks.append(
            f"the load generator was late: p99 of {outcome.lateness.percentiles().p99:,.1f} ms after an operation was "
            "due, which is in the latencies; it shares its cores, or has too few --processes"
        )
    if outcome.missed or outcome.doubled or outcome.disordered:
        remarks.append(
            f"deliveries went wrong: {outcome.missed:,} missed, {outcome.doubled:,} doubled, "
            f"{outcome.disordered:,} out of turn"
        )
    if outcome.unanswered:
        remarks.append(f"{outcome.unanswered:,} operations had no answer in the end; they count with what they waited")
    return remarks


def _late(lateness: Histogram) -> bool:
    return bool(lateness.counts) and lateness.percentiles().p99 > LATE_MS


def whole_json(
    *,
    profile: str,
    parameters: Mapping[str, Any],
    machine: Mapping[str, str],
    at: str,
    reports: Sequence[Report],
    rounds: Mapping[str, Sequence[Report]] | None = None,
) -> bytes:
    """The JSON of a run: one line."""
    document = {
        "bench": profile,
        "at": at,
        "machine": machine,
        "parameters": parameters,
        "reports": reports,
    }
    if rounds:
        document["rounds"] = rounds
    return msgspec.json.encode(document) + b"\n"
