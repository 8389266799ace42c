"""Several processes of a load."""

import pytest

from runtime.bench.processes import Ready, WorkerFailed, run


async def double(number: int, ready: Ready) -> int:
    await ready()
    if number < 0:
        raise ValueError("negative")
    return 2 * number


@pytest.mark.parametrize("numbers", [[4], [1, 2]])
def test_plans_are_done_by_processes_in_order(numbers: list[int]) -> None:
    assert run(double, numbers) == [2 * number for number in numbers]


def test_a_process_that_fails_fails_the_run() -> None:
    with pytest.raises(WorkerFailed, match="negative"):
        run(double, [1, -1])
