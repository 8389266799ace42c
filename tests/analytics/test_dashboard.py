"""The dashboard of analysts: the analyst's account answers its statements, with Grafana's macros written out."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from projections.archive.clickhouse import ClickHouse
from runtime.embedded.clickhouse import ClickHouseServer
from tests.analytics.corpus import invented, load
from tests.runtime.clickhouses import clickhouse_server

pytestmark = pytest.mark.asyncio(loop_scope="session")

DASHBOARD: dict[str, Any] = json.loads((Path(__file__).parents[2] / "deploy" / "grafana" / "analysts.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
MACROS = {
    "timeFilter": r"\1 >= toDateTime('2024-01-01 00:00:00') AND \1 <= toDateTime('2027-01-01 00:00:00')",
    "timeInterval": r"toStartOfInterval(toDateTime(\1), INTERVAL 86400 second)",
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClickHouseServer]:
    async with clickhouse_server(tmp_path_factory.mktemp("server")) as server:
        archive = ClickHouse(server.url)
        await load(archive, invented(7, days=300))
        await archive.close()
        yield server


async def test_it_has_one_source_to_choose_and_every_panel_says_what_it_means() -> None:
    assert [variable["type"] for variable in DASHBOARD["templating"]["list"]] == ["datasource"]
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert {panel["datasource"]["uid"], panel["targets"][0]["datasource"]["uid"]} == {"${datasource}"}


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
async def test_every_statement_is_answered(server: ClickHouseServer, panel: dict[str, Any]) -> None:
    sql: str = panel["targets"][0]["rawSql"]
    for name, written_out in MACROS.items():
        sql = re.sub(rf"\$__{name}\((\w+)\)", written_out, sql)
    assert "$" not in sql.replace("{5,}$", "")
    async with httpx.AsyncClient(timeout=20, verify=False) as client:
        response = await client.post(server.analyst_url, content=sql, params={"default_format": "TSVWithNames"})
    assert response.status_code == 200, response.text
    names, *rows = response.text.splitlines()
    assert rows
    assert names.startswith("time\t") == (panel["type"] == "timeseries")
