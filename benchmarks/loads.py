"""Load on a deployment: `riverrun bench`'s own generator, in this process, with the people of a benchmark."""

import secrets

from benchmarks.deployment import Deployment
from runtime.bench.adapter import AdapterSpec, Seat
from runtime.bench.adapters import find_adapter, load_adapter
from runtime.bench.errors import Worthless
from runtime.bench.load import Load
from runtime.bench.outcome import Outcome
from runtime.bench.population import Population
from runtime.bench.report import Report
from runtime.bench.running import prepare


def adapter_spec(url: str, deployment: Deployment) -> AdapterSpec:
    """The adapter of who speaks Riverrun's protocol at `url` and takes the deployment's tokens."""
    return find_adapter("riverrun", {"url": url, "jwt_secret": deployment.jwt_secret})


async def group(deployment: Deployment, users: int) -> list[Seat]:
    """New users in one new group, which is their number 0.

    Raises:
        ClientError: the server cannot be reached, or refuses.
    """
    adapter = load_adapter(adapter_spec(deployment.url, deployment))
    return await adapter.prepare(secrets.token_hex(4), users, [range(users)])


def loaded(deployment: Deployment, load: Load, population: Population) -> Report:
    """One round of a load on new people.

    Raises:
        Worthless: a delivery was missed, doubled or out of turn, or nothing was acked.
        BenchError, ClientError: see `running.prepare`.
    """
    server = prepare(adapter_spec(deployment.url, deployment), load, population)
    return server.report(whole(server.round()))


def whole(outcome: Outcome) -> Outcome:
    """The outcome, if something was acked and every session was given everything once and in turn.

    Raises:
        Worthless: see `loaded`.
    """
    if outcome.missed or outcome.doubled or outcome.disordered:
        raise Worthless(f"{outcome.missed} missed, {outcome.doubled} doubled, {outcome.disordered} out of turn")
    if not outcome.completed:
        raise Worthless("nothing was acked" + trouble(outcome))
    return outcome


def trouble(figures: Report | Outcome) -> str:
    """What was refused, ended or left without an answer, for the notes; empty when nothing was."""
    if figures.errors or figures.unanswered:
        return f"; errors {dict(figures.errors)}, unanswered {figures.unanswered}"
    return ""
