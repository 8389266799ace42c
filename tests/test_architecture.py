"""The house's own rules, where a machine can hold them: the direction of imports, and the habits of its files.

Each contract of import-linter is shown to hold here, and to fail on a violation planted in a copy of the tree.
"""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES: list[str] = PYPROJECT["tool"]["importlinter"]["root_packages"]
CONTRACTS: list[str] = [contract["name"] for contract in PYPROJECT["tool"]["importlinter"]["contracts"]]
LINES_MAX = 400
NAMELESS = {"utils", "util", "helpers", "helper", "manager", "managers", "base", "common", "misc", "part2"}

# A contract by the beginning of its name, the module that gets a forbidden import, and that import.
LAYERS = "Imports point one way"
JETSTREAM = "Only runtime names the JetStream"
PURE = "The domain is pure"
PAST = "The API reads through queries"
HTTP = "Only the API knows HTTP"
DATABASE = "The log knows no database"
VIOLATIONS = [
    (LAYERS, "domain/ids.py", "import streams.topology"),
    (LAYERS, "streams/cursor.py", "import commands.cache"),
    (LAYERS, "commands/cache.py", "import projections.pages"),
    (LAYERS, "projections/pages.py", "import commands.cache"),
    (LAYERS, "projections/pages.py", "import media"),
    (LAYERS, "projections/pages.py", "import api.metrics"),
    (LAYERS, "api/metrics.py", "import runtime.settings"),
    (JETSTREAM, "commands/cache.py", "import streams.jetstream"),
    (JETSTREAM, "projections/pages.py", "import nats"),
    (JETSTREAM, "streams/memory/log.py", "import streams.jetstream.frames"),
    (PURE, "domain/ids.py", "import time"),
    (PURE, "domain/seen.py", "import asyncio"),
    (PURE, "domain/members.py", "from sqlalchemy import text"),
    (PAST, "api/metrics.py", "import psycopg"),
    (PAST, "api/metrics.py", "import projections.tables"),
    (PAST, "api/metrics.py", "from commands.writer import PartitionWriter"),
    (HTTP, "commands/cache.py", "import starlette.requests"),
    (HTTP, "projections/pages.py", "import jwt"),
    (DATABASE, "streams/cursor.py", "import redis"),
    (DATABASE, "streams/codec.py", "import psycopg"),
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages and their contracts, with every violation planted."""
    copy = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "pyproject.toml", copy)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for _, module, line in VIOLATIONS:
        with (copy / module).open("a") as file:
            file.write(f"\n{line}\n")
    return copy


def linted(root: Path) -> dict[str, str]:
    """The contracts that `lint-imports` says are broken in a tree, and what it says of each."""
    command = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(cache_dir=None))"
    environment = {"COLUMNS": "200", "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", command], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    kept = {name for name in CONTRACTS if f"{name} KEPT" in run.stdout}
    broken = {name for name in CONTRACTS if f"{name} BROKEN" in run.stdout}
    assert kept | broken == set(CONTRACTS), run.stdout + run.stderr
    assert run.returncode == (1 if broken else 0), run.stdout + run.stderr
    _, _, details = run.stdout.partition("Broken contracts")
    starts = [*sorted(details.index(f"\n{name}\n") for name in broken), len(details)]
    sections = (details[start:end] for start, end in pairwise(starts))
    return {section.strip().partition("\n")[0]: section for section in sections}


def test_every_contract_is_kept() -> None:
    assert linted(ROOT) == {}


def test_every_contract_has_a_violation_here() -> None:
    named = {name for name in CONTRACTS for contract, _, _ in VIOLATIONS if name.startswith(contract)}
    assert named == set(CONTRACTS)


def test_every_forbidden_import_breaks_its_contract(tree: Path) -> None:
    found = linted(tree)
    unseen = []
    for contract, path, line in VIOLATIONS:
        importer, imported = path.removesuffix(".py").replace("/", "."), line.split()[1]
        if imported.partition(".")[0] not in PACKAGES:
            imported = imported.partition(".")[0]  # of what is not ours, it names the package
        said = "".join(details for name, details in found.items() if name.startswith(contract))
        if f"{importer} -> {imported} (l." not in said:
            unseen.append((contract, path, line))
    assert unseen == []


# -- the habits of files ------------------------------------------------------------------------------------

SHIPPED = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
WRITTEN = [
    *SHIPPED,
    *sorted(path for folder in ("tests", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py")),
]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Every string of a module that is not a docstring, with its line; of an f-string its fixed parts."""
    module = ast.parse(path.read_text())
    statements = {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Expr)}
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in statements:
            yield node.lineno, node.value


def test_no_module_is_longer_than_400_lines() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in WRITTEN}
    assert {name: lines for name, lines in lengths.items() if lines > LINES_MAX} == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [name_of(path) for path in WRITTEN if NAMELESS & {path.stem, *path.relative_to(ROOT).parts}] == []


def test_every_module_says_what_it_owns() -> None:
    assert [name_of(path) for path in SHIPPED if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_nothing_is_left_to_be_done_later() -> None:
    marks = re.compile(r"#.*\b(TODO|FIXME|XXX|HACK)\b")
    left = [
        f"{name_of(path)}:{number}"
        for path in WRITTEN
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if marks.search(line) and path != Path(__file__)
    ]
    assert left == []


def test_only_settings_read_the_environment() -> None:
    readers = {
        name_of(path)
        for path in SHIPPED
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv"))
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and {n.name for n in node.names} & {"environ"})
    }
    assert readers == {"runtime/settings.py"}


def test_only_streams_write_subjects_streams_and_headers() -> None:
    ours = re.compile(r"(conv|live|cmd|dead)\.|CONV-|Rr-")
    authors = {name_of(path) for path in SHIPPED for _, text in strings(path) if ours.match(text)}
    assert authors == {"streams/subjects.py", "streams/topology.py"}
