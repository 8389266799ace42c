"""What operators watch with, against the code: dashboard, alerts, and the servers that show them."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml  # type: ignore[import-untyped]  # no stubs among our dependencies
from prometheus_client import REGISTRY

import runtime.wiring  # noqa: F401  # every role, so every metric is registered

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "riverrun.json").read_text())
ALERTS: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
PROMETHEUS: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
EXPRESSIONS += [(rule["alert"], rule["expr"]) for rule in ALERTS]
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}


def test_the_dashboard_has_its_rows_and_one_source_to_choose() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == [
        "Sends",
        "Writers",
        "Projections",
        "Fan-out",
        "Push",
        "Sessions",
        "Presence",
        "Servers",
        "Tiers",
        "Archive",
    ]
    assert [variable["type"] for variable in DASHBOARD["templating"]["list"]] == ["datasource"]
    assert {panel["datasource"]["uid"] for panel in PANELS} == {"${datasource}"}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_every_panel_and_alert_says_what_it_means() -> None:
    for panel in PANELS:
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
    for rule in ALERTS:
        assert rule["annotations"].keys() == {"summary", "action"}, rule["alert"]
        assert rule["labels"]["severity"] in {"page", "ticket"}, rule["alert"]


@pytest.mark.parametrize(("name", "expression"), EXPRESSIONS)
def test_every_expression_can_be_read(name: str, expression: str) -> None:
    promql_parser.parse(expression.replace("$__rate_interval", "1m"))


def test_every_metric_asked_for_is_counted_and_every_one_counted_is_shown() -> None:
    samples = {
        family.name + suffix: family.name
        for family in REGISTRY.collect()
        for suffix in SUFFIXES.get(family.type, ("",))
    }
    asked = {name for _, expression in EXPRESSIONS for name in re.findall(r"riverrun_[a-z_]+", expression)}
    assert asked - samples.keys() == set()
    shown = {samples[name] for name in asked}
    assert {name for name in samples.values() if name.startswith("riverrun_")} == shown


def test_every_role_is_asked_and_at_a_port_where_it_listens() -> None:
    roles = {name for name, service in COMPOSE["services"].items() if service.get("image") == "riverrun"}
    ports: dict[str, str] = {}
    for job in PROMETHEUS["scrape_configs"]:
        for found in job["dns_sd_configs"]:
            ports |= dict.fromkeys(found["names"], str(found["port"]))
    assert ports.keys() == roles
    for role, port in ports.items():
        monitoring = COMPOSE["services"][role]["environment"]["RIVERRUN_MONITORING_PORT"]
        assert port == ("8080" if role == "api" else monitoring), role


def test_monitoring_is_optional_and_nothing_is_published_beyond_loopback() -> None:
    for name in ("prometheus", "grafana"):
        assert COMPOSE["services"][name]["profiles"] == ["monitoring"]
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    for name in ("prometheus", "grafana"):
        for volume in COMPOSE["services"][name]["volumes"]:
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).exists(), source


def test_every_secret_is_made(tmp_path: Path) -> None:
    script = tmp_path / "deploy" / "make-secrets.sh"
    script.parent.mkdir()
    script.write_text((DEPLOY / "make-secrets.sh").read_text())
    subprocess.run(["sh", script], check=True)
    for name, secret in COMPOSE["secrets"].items():
        assert (tmp_path / secret["file"]).stat().st_size > 0, name
