"""`riverrun settings`: lists all settings with their defaults."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from runtime.cli.target import load_settings
from runtime.settings import describe, unknown_variables

PIPE_WIDTH = 240  # a setting a line, for grep


def settings(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """List all settings: environment variables, defaults, current values. Passwords are masked."""
    described = list(describe(load_settings()))
    for warning in unknown_variables():
        sys.stderr.write(f"riverrun: warning: {warning}\n")
    if as_json:
        sys.stdout.write(json.dumps([asdict(setting) for setting in described], indent=2) + "\n")
        return

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    table.add_column("Variable", no_wrap=True)
    for heading in ("Default", "Current", "Meaning"):
        table.add_column(heading, overflow="fold")
    for setting in described:
        what = f"{setting.what} ({setting.unit})" if setting.unit else setting.what
        current = Text(setting.current, style="" if setting.current == setting.default else "bold")
        table.add_row(setting.variable, Text(setting.default), current, Text(what))
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_WIDTH)
    console.print(table)
