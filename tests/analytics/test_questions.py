"""The worked questions: each is answered by the analyst's account, and those that can be asked of Python agree."""

import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio

from projections.archive.clickhouse import ClickHouse
from runtime.analysis.asking import Rows
from runtime.analysis.chart import series_of
from runtime.embedded.clickhouse import ClickHouseServer
from tests.analytics.corpus import Written, invented, load
from tests.analytics.questions import FOLDER, Question, questions
from tests.runtime.clickhouses import clickhouse_server

pytestmark = pytest.mark.asyncio(loop_scope="session")

WRITTEN = invented(7)
QUESTIONS = {question.name[3:]: question for question in questions()}
FORM = "JSONCompactEachRowWithNamesAndTypes"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClickHouseServer]:
    async with clickhouse_server(tmp_path_factory.mktemp("server")) as server:
        archive = ClickHouse(server.url)
        await load(archive, WRITTEN)
        await archive.close()
        yield server


async def answer(server: ClickHouseServer, question: Question) -> Rows:
    parameters = {"default_format": FORM, "wait_end_of_query": "1"}
    async with httpx.AsyncClient(timeout=20, verify=False) as client:
        statement = (FOLDER / f"{question.name}.sql").read_text()  # as it is, comments included
        response = await client.post(server.analyst_url, content=statement, params=parameters)
    assert response.status_code == 200, response.text
    names, types, *rows = map(json.loads, response.text.splitlines())
    return Rows(names, types, rows)


async def test_there_are_twenty_each_with_a_question_and_a_picture() -> None:
    assert [question.name[:2] for question in questions()] == [f"{number:02}" for number in range(1, 21)]
    page = (FOLDER.parent / "analytics.md").read_text()
    for question in questions():
        assert question.question.endswith("?")
        assert f"## {question.question}\n" in page
        assert question.sql.strip() in page
        assert f"](analytics/{question.name}.png)" in page
        assert (FOLDER / f"{question.name}.png").stat().st_size < 60_000


@pytest.mark.parametrize("name", QUESTIONS)
async def test_each_is_answered_and_makes_a_picture(server: ClickHouseServer, name: str) -> None:
    _, series = series_of(await answer(server, QUESTIONS[name]))
    assert any(y for points in series.values() for _, y in points)


def daily_active_users() -> list[list[Any]]:
    days: dict[str, set[str]] = defaultdict(set)
    for one in WRITTEN:
        days[f"{one.at:%Y-%m-%d}"].add(one.sender)
    return [[day, len(senders)] for day, senders in sorted(days.items())]


def newcomers() -> list[list[Any]]:
    first: dict[str, str] = {}
    days: dict[str, set[str]] = defaultdict(set)
    for one in WRITTEN:
        day = f"{one.at:%Y-%m-%d}"
        first.setdefault(one.sender, day)
        days[day].add(one.sender)
    return [
        [day, sum(first[one] == day for one in senders), sum(first[one] < day for one in senders)]
        for day, senders in sorted(days.items())
    ]


def retention() -> list[list[Any]]:
    years: dict[str, set[int]] = defaultdict(set)
    for one in WRITTEN:
        years[one.sender].add(one.at.year)
    cohorts = Counter(min(seen) for seen in years.values())
    later = Counter((min(seen), year - min(seen)) for seen in years.values() for year in seen if year > min(seen))
    return [[after, str(cohort), round(n / cohorts[cohort], 4)] for (cohort, after), n in sorted(later.items())]


def busiest_weekdays() -> list[list[Any]]:
    days, counts = defaultdict(set), Counter[int]()
    for one in WRITTEN:
        days[one.at.isoweekday()].add(one.at.date())
        counts[one.at.isoweekday()] += 1
    return [[day, round(counts[day] / len(days[day]), 1)] for day in sorted(counts)]


def concentration() -> list[list[Any]]:
    counts = sorted(Counter(one.sender for one in WRITTEN).items(), key=lambda item: (-item[1], item[0]))
    tenths = Counter[int]()
    for rank, (_, count) in enumerate(counts):
        tenths[rank * 10 // len(counts) + 1] += count
    return [[tenth, round(count / len(WRITTEN), 4)] for tenth, count in sorted(tenths.items())]


def who_answers_whom() -> list[list[Any]]:
    pairs = Counter(f"{one.sender} → {one.mention}" for one in WRITTEN if one.mention)
    return [[pair, n] for pair, n in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:15]]


def response_times() -> list[list[Any]]:
    minutes = Counter[int]()
    newest: dict[str, Written] = {}
    for one in WRITTEN:
        before = newest.get(one.group)
        if before is not None and before.sender != one.sender:
            minutes[_minute(one.at) - _minute(before.at)] += 1
        newest[one.group] = one
    return [[after, n] for after, n in sorted(minutes.items()) if after <= 10]


def _minute(at: datetime) -> int:
    """Whole minutes, as `dateDiff` counts them: those that began in between."""
    return int(at.timestamp()) // 60


def response_times_by_hour() -> list[list[Any]]:
    waits: dict[int, list[float]] = defaultdict(list)
    newest: dict[tuple[str, str], Written] = {}
    for one in WRITTEN:
        asked = newest.get((one.group, one.mention))
        if asked is not None and one.at - asked.at < timedelta(hours=1):
            waits[one.at.hour].append((one.at - asked.at).total_seconds())
        newest[one.group, one.sender] = one
    return [[hour, round(sum(found) / len(found) / 60, 2)] for hour, found in sorted(waits.items())]


def growth_of_groups() -> list[list[Any]]:
    days: dict[str, dict[str, set[str]]] = defaultdict(dict)
    members: dict[str, set[str]] = defaultdict(set)
    for one in WRITTEN:
        if one.sender not in members[one.group]:
            members[one.group].add(one.sender)
            days[one.group][f"{one.at:%Y-%m-%d}"] = set(members[one.group])
    return [[day, group, len(there)] for group, found in sorted(days.items()) for day, there in sorted(found.items())]


def visits() -> list[list[Any]]:
    times: dict[str, list[datetime]] = defaultdict(list)
    for one in WRITTEN:
        times[one.sender].append(one.at)
    lengths = Counter[int]()
    for of_one in times.values():
        began = last = min(of_one)
        for at in [*sorted(of_one), datetime.max.replace(tzinfo=last.tzinfo)]:
            if at - last > timedelta(minutes=30):
                lengths[min((_minute(last) - _minute(began)) // 10, 12)] += 1
                began = at
            last = at
    return [[tens, n] for tens, n in sorted(lengths.items())]


@pytest.mark.parametrize(
    "computed",
    [
        daily_active_users,
        newcomers,
        retention,
        busiest_weekdays,
        concentration,
        who_answers_whom,
        response_times,
        response_times_by_hour,
        growth_of_groups,
        visits,
    ],
)
async def test_the_answer_is_what_python_finds(
    server: ClickHouseServer, computed: Callable[[], list[list[Any]]]
) -> None:
    expected = computed()
    assert expected
    found = await answer(server, QUESTIONS[computed.__name__.replace("_", "-")])
    assert [[_number(cell) for cell in row] for row in found.rows] == [
        [_number(cell) for cell in row] for row in expected
    ]


def _number(cell: Any) -> Any:
    """A number of 64 bits is a string in JSON."""
    return float(cell) if str(cell).replace(".", "", 1).isdecimal() else cell
