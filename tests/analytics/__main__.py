"""Writes `docs/analytics.md` and its pictures anew: `python -m tests.analytics FOLDER_OF_IRC_LOGS`.

It starts a Riverrun, puts the logs into its archive at the times they were written, and asks through the public door.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from projections.archive.clickhouse import ClickHouse
from runtime.analysis.asking import Asking, Rows
from runtime.analysis.chart import draw
from tests.analytics.corpus import load, logs
from tests.analytics.questions import FOLDER, Question, questions
from tests.running import Running

SHOWN: Final = 10  # rows of an answer on the page

HEAD: Final = """\
# Twenty questions

What the [archive](archive.md) can be asked, each with its statement, its answer and a picture. Ask them yourself:

```sh
riverrun sql < docs/analytics/01-daily-active-users.sql
riverrun chart users.png --title "Active users" < docs/analytics/01-daily-active-users.sql
```

The answers are of the Ubuntu IRC logs: {messages:,} messages by {people:,} people on {days} days between {first} and
{last}, put into the archive with the times they were written at, which are to the minute. (`riverrun import irc` posts
a log now, so an imported one has the time of its import.) The days are far apart; where they follow each other, week by
week says more than year by year. The statements are in [docs/analytics](analytics/), a test runs all of them and
compares half of the answers with what Python computes; this page is made by `python -m tests.analytics`.
"""


async def main(folder: Path) -> None:
    """Ask everything, and write the page."""
    written = list(logs(folder))
    with tempfile.TemporaryDirectory() as data_dir:
        running = Running(Path(data_dir) / "data")
        await running.start()
        try:
            archive = ClickHouse(running.run_json()["clickhouse_url"])
            await load(archive, written)
            await archive.close()
            secret = (running.data_dir / "jwt.secret").read_text().strip()
            asking = Asking(running.url, secret)
            page = [
                HEAD.format(
                    messages=len(written),
                    people=len({one.sender for one in written}),
                    days=len({one.at.date() for one in written}),
                    first=written[0].at.year,
                    last=written[-1].at.year,
                )
            ]
            for question in questions():
                page.append(await asyncio.to_thread(_answered, asking, question))
            (FOLDER.parent / "analytics.md").write_text("\n".join(page), encoding="utf-8")
        finally:
            await running.stop()


def _answered(asking: Asking, question: Question) -> str:
    began_s = time.perf_counter()
    answer = asking.rows(question.sql)
    sys.stdout.write(f"{question.name}: {len(answer.rows)} rows, {(time.perf_counter() - began_s) * 1000:.0f} ms\n")
    draw(FOLDER / f"{question.name}.png", answer, title=question.question)
    remark = f"{question.remark}\n\n" if question.remark else ""
    sql = question.sql.strip()
    return (
        f"## {question.question}\n\n{remark}```sql\n{sql}\n```\n\n{_table(answer)}\n"
        f"![{question.question}](analytics/{question.name}.png)\n"
    )


def _table(answer: Rows) -> str:
    head = [f"| {' | '.join(answer.names)} |", f"|{'---|' * len(answer.names)}"]
    rows = [f"| {' | '.join(map(_cell, row))} |" for row in answer.rows[:SHOWN]]
    left = len(answer.rows) - SHOWN
    return "\n".join([*head, *rows]) + "\n" + (f"\n… and {left} more.\n" if left > 0 else "")


def _cell(value: Any) -> str:
    text = str(value)
    return text if text.replace(".", "").replace("-", "").isalnum() else f"`{text.replace('|', chr(92) + '|')}`"


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
