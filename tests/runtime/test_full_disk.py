"""A disk without room, at the start and in the middle: one plain line, or "unavailable", and nothing acked is lost."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.client import ApiError, HttpClient
from tests.running import Running
from tests.runtime.test_up import assert_refused, up

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of its own, as large as the test says (in MiB)."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={request.param}m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(path: Path) -> None:
    """Write until there is no room. Ends by an `OSError`."""
    with path.open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(MIB))


async def post_on(client: HttpClient, conversation_id: str, acked: list[str]) -> None:
    """Post large texts until one is refused. Ends by an `ApiError`, or after far more than fit."""
    for number in range(100):
        text = f"{number} " + "x" * 8_000
        await client.post(conversation_id, text, client_msg_id=f"m{number}")
        acked.append(text)


@pytest.mark.parametrize("small_disk", [5], indirect=True)
async def test_a_start_on_a_full_disk_is_refused_in_one_line(small_disk: Path) -> None:
    assert_refused(await up(small_disk / "data", "--port", "0"), "did not start", "No space left on device")


@pytest.mark.parametrize("small_disk", [250], indirect=True)
async def test_a_disk_that_fills_up_refuses_and_loses_nothing_acked(small_disk: Path) -> None:
    running = Running(small_disk / "data")
    await running.start()
    acked: list[str] = []
    try:
        async with HttpClient(running.url, running.token("alice")) as alice:
            conversation = (await alice.create_conversation("group", ["bob"]))["conversation_id"]
            with pytest.raises(OSError, match="No space"):
                fill(small_disk / "filler")
            with pytest.raises(ApiError) as refusal:
                await post_on(alice, conversation, acked)
            assert (refusal.value.code, refusal.value.status) == ("unavailable", 503)
            assert running.alive
        (small_disk / "filler").unlink()
        # nats-server stores nothing more after a failed write until it is started again (2.15.1).
        await running.kill()
        await running.start()
        async with HttpClient(running.url, running.token("alice")) as alice:
            await alice.post(conversation, "after")
            texts = [message["body"]["text"] async for message in alice.messages(conversation)]
        assert [text for text in texts if text in acked] == acked
        assert texts[-1] == "after"
    finally:
        if running.alive:
            await running.kill()
