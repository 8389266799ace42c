"""`riverrun serve`: some roles, against servers that run elsewhere."""

import asyncio
import sys
from typing import Annotated

import typer

from runtime.cli import fail
from runtime.cli.process import plain_errors, run_until_stopped, start_process, unless_stopped
from runtime.settings import Settings

LATER_ROLES = frozenset({"rooms", "media"})
GRACE_BEYOND_DRAIN_S = 3.0


def serve(
    roles: Annotated[str, typer.Option(help="Of api, writer, fanout, projector, archiver; with commas between.")],
    host: Annotated[str | None, typer.Option(help="Address the API listens on. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Its port. [default: 8080]", min=0, max=65535)] = None,
) -> None:
    """Run some roles against servers named by RIVERRUN_* settings (see `riverrun settings`)."""
    from runtime import wiring

    wanted = frozenset(role.strip() for role in roles.split(",") if role.strip())
    if later := sorted(wanted & LATER_ROLES):
        fail(f"not in this release: {', '.join(later)}; its roles are {', '.join(sorted(wiring.ROLES))}")
    if unknown := sorted(wanted - wiring.ROLES):
        fail(f"no such role: {', '.join(unknown)}; there are {', '.join(sorted(wiring.ROLES))}")
    if not wanted:
        fail(f"--roles names none of {', '.join(sorted(wiring.ROLES))}")
    settings = start_process(host=host, port=port)
    if "api" in wanted and settings.jwt_secret_file is None and settings.jwks_file is None:
        fail("the role api needs RIVERRUN_JWT_SECRET_FILE or RIVERRUN_JWKS_FILE")
    with plain_errors(settings):
        run_until_stopped(lambda stop: _serve(settings, wanted, stop))


async def _serve(settings: Settings, roles: frozenset[str], stop: asyncio.Event) -> None:
    from runtime import wiring

    def ready(url: str) -> None:
        where = f" at {url}" if url else ""
        sys.stdout.write(f"Riverrun serves {', '.join(sorted(roles))}{where}\n")
        sys.stdout.flush()

    await unless_stopped(
        wiring.run(settings, roles, ready=ready, stop=stop),
        stop,
        grace_s=settings.drain_s + GRACE_BEYOND_DRAIN_S,
    )
