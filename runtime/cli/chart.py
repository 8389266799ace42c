"""`riverrun chart`: a picture of what the archive answers."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from runtime.analysis.asking import Asking
from runtime.analysis.chart import ChartError, draw
from runtime.cli import fail
from runtime.cli.target import resolve_target
from runtime.client.errors import ApiError, ClientError


def chart(
    output: Annotated[Path, typer.Argument(metavar="FILE", help="The PNG to write.")],
    statement: Annotated[str | None, typer.Argument(help="The question; without it, stdin's.")] = None,
    *,
    title: Annotated[str, typer.Option(help="Above the picture.")] = "",
    x_label: Annotated[str, typer.Option(help="Of what the first column says.")] = "",
    y_label: Annotated[str, typer.Option(help="Of the numbers. [default: their column's name]")] = "",
    url: Annotated[str | None, typer.Option(help="The server, http://host:port.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="The data dir of a local server.")] = None,
) -> None:
    """Draw an answer: the first column along, the numbers up; a second column of text makes a series of each value.

    A time is a line, a number a line or, up to 32 of them, bars; a text is bars.

    Exit status: 0 drawn, 1 the statement is refused, 2 no picture.
    """
    target = resolve_target(url, data_dir)
    try:
        answer = Asking(target.url, target.jwt_secret).rows(sys.stdin.read() if statement is None else statement)
        draw(output, answer, title=title, x_label=x_label, y_label=y_label)
    except ApiError as error:
        sys.stderr.write(f"riverrun: {' '.join(error.detail.split())}\n")
        raise typer.Exit(1) from None
    except (ClientError, ChartError) as error:
        fail(str(error))
