"""`riverrun token`: prints a JWT."""

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from runtime.cli import fail
from runtime.cli.target import DEFAULT_DATA_DIR, jwt_secret, load_settings

USER_ID = re.compile(r"[A-Za-z0-9_.:@|^\[\]{}\\`~-]{1,64}")
DURATION = re.compile(r"(\d{1,9})([smhd]?)")
UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def token(
    user: Annotated[str, typer.Option(help="User id: 1 to 64 of A-Za-z0-9_.:@|^[]{}\\`~-")],
    ttl: Annotated[str, typer.Option(help="How long it is valid: 90s, 30m, 24h, 7d.")] = "24h",
    admin: Annotated[bool, typer.Option("--admin", help="With the scope of the admin API.")] = False,
    analyst: Annotated[bool, typer.Option("--analyst", help="With the scope that asks the archive in SQL.")] = False,
    data_dir: Annotated[Path, typer.Option(help="Data directory of the server it is for.")] = DEFAULT_DATA_DIR,
) -> None:
    """Print a JWT for a user, signed with the secret of a data directory or of RIVERRUN_JWT_SECRET_FILE."""
    if not USER_ID.fullmatch(user):
        fail(f"--user {user!r} is not a user id: 1 to 64 of A-Za-z0-9_.:@|^[]{{}}\\`~- are expected")
    duration = DURATION.fullmatch(ttl)
    if duration is None or int(duration[1]) == 0:
        fail(f"--ttl {ttl!r} is not a duration: one like 90s, 30m, 24h or 7d is expected")
    secret = jwt_secret(load_settings(), data_dir)

    from runtime.tokens import mint

    ttl_s = int(duration[1]) * UNIT_S[duration[2]]
    sys.stdout.write(mint(user, ttl_s=ttl_s, admin=admin, analyst=analyst, secret=secret) + "\n")
