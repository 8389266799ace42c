"""The command line. Each command is in a file of its own, which is imported when it is called: help is quick.

What is expected to go wrong ends in one plain line on stderr and exit status 2.
"""

import importlib
import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

# Command: where it is, and its line in the help.
COMMANDS = {
    "up": ("runtime.cli.up:up", "Run everything here: servers and all roles, from one data directory."),
    "serve": ("runtime.cli.serve:serve", "Run some roles against servers named by RIVERRUN_* settings."),
    "token": ("runtime.cli.token:token", "Print a JWT for a user."),
    "settings": ("runtime.cli.settings:settings", "List all settings."),
    "import": ("runtime.cli.import_irc:app", "Post logs of other chat systems."),
    "nodes": ("runtime.cli.nodes:nodes", "Show the nodes of a deployment: roles, partitions, what waits."),
    "verify": ("runtime.cli.verify:verify", "Compare the log with the read models."),
    "trace": ("runtime.cli.trace:trace_message", "What happened to a message, and why somebody did not see it."),
    "log": ("runtime.cli.log:app", "Show events of the log: the newest, one whole, those with a text."),
    "as-of": ("runtime.cli.as_of:as_of", "A conversation, a membership or an inbox as it was."),
    "dead": ("runtime.cli.dead:app", "List and replay events that a projection could not apply."),
    "tiers": ("runtime.cli.tiers:app", "Show what lies in which tier, and move what is old."),
    "sql": ("runtime.cli.sql:sql", "Ask the archive in SQL."),
    "chart": ("runtime.cli.chart:chart", "Draw what the archive answers."),
    "bench": ("runtime.cli.bench:app", "Put load on a running server and measure it."),
}


class LazyGroup(TyperGroup):
    """Commands that are imported when they are called; their help lines are known without."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module_name, _, attribute = COMMANDS[cmd_name][0].partition(":")
        found = getattr(importlib.import_module(module_name), attribute)
        if not isinstance(found, typer.Typer):
            function, found = found, typer.Typer(add_completion=False)
            found.command(cmd_name)(function)
        found.rich_markup_mode = None  # errors are plain lines, here as above
        command = typer.main.get_command(found)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


app = typer.Typer(
    cls=LazyGroup,
    name="riverrun",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def riverrun() -> None:
    """Riverrun: a real-time chat backend. `riverrun up` starts everything; `riverrun COMMAND --help` tells more."""


def fail(line: str) -> NoReturn:
    """End the command: one plain line on stderr, exit status 2."""
    sys.stderr.write(f"riverrun: {line}\n")
    raise typer.Exit(2)


def main() -> None:
    """The entry point of `riverrun`."""
    app()
