"""`python -m benchmarks.ejabberd`: an ejabberd of our own to compare with, in the foreground until Ctrl-C.

Debian's package, run as an instance of its own: configuration, data and logs in a temporary folder, ports from the OS,
loopback only, its node unknown to others. It is set up for speed and for what Riverrun does too: no TLS, no shapers,
rooms that keep what is said in an archive, and that do not tell everybody who enters and leaves.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from runtime.embedded.child import free_port

CTL: Final = "ejabberdctl"
USER: Final = "ejabberd"  # whom Debian's ejabberdctl runs the server as, and lets run it
START_S: Final = 60.0

CONFIG: Final = """\
hosts: [localhost]
loglevel: warning
auth_method: internal
auth_password_format: scram
disable_sasl_mechanisms: [digest-md5, X-OAUTH2, SCRAM-SHA-1, SCRAM-SHA-1-PLUS]
listen:
  - {{port: {port}, ip: 127.0.0.1, module: ejabberd_c2s, starttls_required: false, backlog: 1024,
      max_fsm_queue: 100000, max_stanza_size: 262144}}
registration_timeout: infinity
shaper_rules: {{max_user_sessions: 20}}
modules:
  mod_caps: {{}}
  mod_disco: {{}}
  mod_mam: {{db_type: mnesia, default: always, cache_size: 100000}}
  mod_muc:
    max_users: 20000
    max_users_presence: 0
    max_room_id: infinity
    history_size: 0
    default_room_options:
      persistent: true
      mam: true
      max_users: 20000
      presence_broadcast: []
      allow_subscription: false
  mod_register: {{ip_access: all, access: all, welcome_message: {{}}}}
  mod_version: {{show_os: false}}
"""


class NoEjabberd(Exception):
    """It is not installed, or did not start; a plain line."""


@dataclass(frozen=True, slots=True)
class Ejabberd:
    """A running one."""

    url: str
    pid: int


@contextmanager
def ejabberd(port: int = 0) -> Iterator[Ejabberd]:
    """Start one, and stop it and delete its data afterwards.

    Raises:
        NoEjabberd: see there.
    """
    if shutil.which(CTL) is None:
        raise NoEjabberd("ejabberd is not installed: apt-get install ejabberd")
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="riverrun-ejabberd-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        _lay_out(folder, port)
        command = [CTL, "--config-dir", name, "--spool", f"{name}/spool", "--logs", f"{name}/logs", "foreground"]
        # A port of its own for Erlang's distribution instead of the machine-wide epmd: others on it stay unseen.
        environment = {**os.environ, "ERL_DIST_PORT": str(free_port()), "HOME": name}
        output = folder / "output"
        # As the account it is run by, not through the `su` of ejabberdctl, which would take it out of our session.
        user = USER if os.geteuid() == 0 else None
        with (
            output.open("wb") as log,
            subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True, user=user, group=user
            ) as process,
        ):
            try:
                yield Ejabberd(f"xmpp://127.0.0.1:{port}", _ready(process, port, output))
            finally:
                _stop(process)


def _lay_out(folder: Path, port: int) -> None:
    (folder / "ejabberd.yml").write_text(CONFIG.format(port=port))
    (folder / "inetrc").write_text("{lookup, [file, native]}.\n")
    (folder / "ejabberdctl.cfg").write_text(
        f"ERLANG_NODE=riverrun{port}@localhost\nINET_DIST_INTERFACE=127.0.0.1\nEJABBERD_BYPASS_WARNINGS=true\n"
        f'ERL_DIST_PORT="$ERL_DIST_PORT"\nEJABBERD_PID_PATH={folder}/pid\n'
    )
    for name in ("spool", "logs"):
        (folder / name).mkdir()
    if os.geteuid() == 0:  # the server runs unprivileged, in a folder that is its own
        account = pwd.getpwnam(USER)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid)


def _ready(process: "subprocess.Popen[bytes]", port: int, output: Path) -> int:
    """Wait until it answers; its pid."""
    give_up_at = time.monotonic() + START_S
    while time.monotonic() < give_up_at and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return int((output.parent / "pid").read_text())
        except (OSError, ValueError):
            time.sleep(0.1)
    raise NoEjabberd("ejabberd did not start:\n" + output.read_text(errors="replace")[-2000:])


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Kill what it began, ejabberdctl and the virtual machine: nobody wants its data, and an end in good order takes it
    ten seconds."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def main(port: Annotated[int, typer.Option(help="Where it listens; 0: a port the OS gives.")] = 0) -> None:
    """Run an ejabberd for comparisons until Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ejabberd(port) as server:
            print(f"ejabberd is ready: --target xmpp={server.url} --pid xmpp={server.pid}", flush=True)
            signal.pause()
    except NoEjabberd as error:
        typer.echo(f"benchmarks.ejabberd: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    typer.run(main)
