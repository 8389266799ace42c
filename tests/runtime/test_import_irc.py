"""Importing IRC logs: what is refused before anything is posted, and what ends up where against a running server."""

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.client import HttpClient
from runtime.importing import IMPORTER, client_msg_id, nicks_of, read_sources
from tests.running import Running

CORPUS = Path(__file__).parents[3] / "shared" / "data" / "ubuntu-irc"

LOG = (
    "=== bob has joined #test\n"
    "[08:36] <alice>  leading and trailing \n"
    "[08:36] <[N] ick> h\u00e9\tllo\n"
    "[08:36] <quiet>\n"
    "[08:37]  * alice waves\n"
    "[08:37] <alice> [N]ick: again\n"
)
EXPECTED = [
    ("alice", " leading and trailing "),
    ("[N]ick", "h\u00e9\tllo"),
    ("alice", "/me waves"),
    ("alice", "[N]ick: again"),
]


def riverrun(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "runtime.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def write(path: Path, content: str = LOG) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


# -- refused before anything is posted ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["missing", "a directory", "no messages", "empty", "one name"])
def test_unusable_input_is_one_plain_line_and_status_2(tmp_path: Path, kind: str) -> None:
    good = write(tmp_path / "good.txt")
    (tmp_path / "folder").mkdir()
    bad = {
        "missing": tmp_path / "missing.txt",
        "a directory": tmp_path / "folder",
        "no messages": write(tmp_path / "notices.txt", "=== notice\n\nother text\n"),
        "empty": write(tmp_path / "empty.txt", ""),
        "one name": write(tmp_path / "folder" / "good.txt"),
    }[kind]
    files = [bad] if kind in ("no messages", "empty") else [good, bad]
    ended = riverrun("import", "irc", *files, "--conversation", "test", "--data-dir", tmp_path)
    assert ended.returncode == 2
    assert ended.stdout == ""
    [line] = ended.stderr.splitlines()
    assert line.startswith("riverrun: ")


def test_a_server_that_is_not_there_is_one_plain_line_and_status_2(tmp_path: Path) -> None:
    (tmp_path / "jwt.secret").write_text("0" * 64)
    (tmp_path / "run.json").write_text('{"url": "http://127.0.0.1:9"}')
    ended = riverrun("import", "irc", write(tmp_path / "a.txt"), "--conversation", "test", "--data-dir", tmp_path)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "cannot reach http://127.0.0.1:9" in ended.stderr
    assert "Traceback" not in ended.stderr


# -- reading ------------------------------------------------------------------------------------------------


def test_messages_are_named_by_file_and_line_whatever_the_file_is_called(tmp_path: Path) -> None:
    paths = [tmp_path / "2005-05-19.txt", tmp_path / ("long" * 20 + ".txt"), tmp_path / "with space.txt"]
    names = set()
    for source in read_sources([write(path) for path in paths]):
        for line in source.log.lines:
            name = client_msg_id(source, line)
            assert re.fullmatch(r"[!-~]{1,64}", name)
            names.add(name)
    assert len(names) == 3 * len(EXPECTED)
    assert "2005-05-19:2" in names


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the shared IRC corpus is not on this machine")
def test_the_corpus_has_the_messages_and_authors_it_is_said_to_have() -> None:
    files = sorted(CORPUS.glob("*.txt"))
    sources = read_sources(files)
    lines = [(line.nick, line.text) for source in sources for line in source.log.lines]

    # A second reading, by other means.
    expected = []
    for file in files:
        for raw in file.read_bytes().split(b"\n"):
            if raw[8:9] == b"<":
                nick, _, text = raw[9:].partition(b">")
                text = text[1:]
            elif raw[7:11] == b"  * ":
                nick, _, text = raw[11:].partition(b" ")
                text = b"/me " + text
            else:
                continue
            if text:
                expected.append((nick.decode().replace(" ", ""), text.decode("utf-8", "replace")))
    assert lines == expected
    assert len(lines) == 25_850
    assert sum(source.log.without_text for source in sources) == 3
    assert not any(source.log.refused for source in sources)
    assert len(nicks_of(sources)) == len({nick for nick, _ in expected})


# -- against a server ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    running = Running(tmp_path_factory.mktemp("import") / "data")
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


def imported(running: Running, *files: Path, conversation: str) -> dict[str, object]:
    options = ["--conversation", conversation, "--as-fast-as-possible", "--data-dir", str(running.data_dir)]
    ended = riverrun("import", "irc", *files, *options)
    assert ended.returncode == 0, ended.stderr
    result: dict[str, object] = json.loads(ended.stdout.splitlines()[-1])
    return result


async def test_every_line_is_posted_once_by_its_author_in_order(running: Running, tmp_path: Path) -> None:
    file = write(tmp_path / "log.txt")
    first = imported(running, file, conversation="once")
    assert (first["posted"], first["duplicates"], first["skipped"], first["last_seq"]) == (4, 0, 1, 4)

    again = imported(running, file, conversation="once")
    assert (again["posted"], again["duplicates"], again["last_seq"]) == (0, 4, 4)
    assert again["conversation_id"] == first["conversation_id"]

    conversation_id = str(first["conversation_id"])
    async with HttpClient(running.url, running.token("alice")) as client:
        conversation = await client.conversation(conversation_id)
        messages = [message async for message in client.messages(conversation_id, min_version=conversation["version"])]
    assert [(message["sender_id"], message["body"]["text"]) for message in messages] == EXPECTED
    assert [message["seq"] for message in messages] == [1, 2, 3, 4]
    assert [message["mentions"] for message in messages] == [[], [], [], ["[N]ick"]]
    assert (conversation["name"], conversation["created_by"]) == ("once", IMPORTER)


async def test_a_file_that_grew_is_continued(running: Running, tmp_path: Path) -> None:
    file = write(tmp_path / "log.txt")
    imported(running, file, conversation="grown")
    write(file, LOG + "[08:38] <new> more\n")
    result = imported(running, file, conversation="grown")
    assert (result["posted"], result["duplicates"], result["last_seq"]) == (1, 4, 5)


async def test_a_line_that_changed_is_refused_with_its_place(running: Running, tmp_path: Path) -> None:
    file = write(tmp_path / "log.txt")
    imported(running, file, conversation="changed")
    write(file, LOG.replace("again", "something else"))
    ended = riverrun("import", "irc", file, "--conversation", "changed", "--data-dir", running.data_dir)
    assert ended.returncode == 2
    assert f"{file}, line 6: conflict" in ended.stderr
    assert "Traceback" not in ended.stderr
