"""Processes do jobs, say how they do, and end when nobody waits for them any more."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulation.errors import DataError
from tuning.errors import ProcessDiedError
from tuning.pool import Pool


def squares(count: int) -> Iterator[int]:
    for number in range(count):
        yield number**2


def die(number: int) -> Iterator[int]:
    yield number
    os._exit(1)


def fail(number: int) -> Iterator[int]:
    yield number
    raise DataError("there is no such file")


def wait_for(file: Path) -> Iterator[int]:
    """Says which process it is, and goes on when there is a file."""
    yield os.getpid()
    while not file.exists():
        time.sleep(0.01)
    yield 0


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_each_job_is_done_and_heard_in_its_order() -> None:
    heard: dict[int, list[int]] = {}

    def hear(number: int, value: int) -> bool:
        heard.setdefault(number, []).append(value)
        return True

    with Pool(2) as pool:
        pool.run(squares, [3, 1, 2], hear)
        assert heard == {0: [0, 1, 4], 1: [0], 2: [0, 1]}
        heard.clear()
        pool.run(squares, [2], hear)
    assert heard == {0: [0, 1]}


def test_a_job_is_given_up_and_its_process_does_the_next() -> None:
    heard: list[tuple[int, int]] = []

    def hear(number: int, value: int) -> bool:
        heard.append((number, value))
        return number > 0 or value < 1

    with Pool(1) as pool:
        pool.run(squares, [100, 3], hear)
    assert heard == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 4)]


def test_what_is_next_may_depend_on_what_was_heard() -> None:
    last = [1]

    def jobs() -> Iterator[int]:
        while last[-1] < 20:
            yield last[-1] + 2

    def hear(_: int, value: int) -> bool:
        last.append(value)
        return True

    with Pool(1) as pool:
        pool.run(squares, jobs(), hear)
    assert last == [1, 0, 1, 4, 0, 1, 4, 9, 16, 25]


def test_a_process_that_dies_is_an_error() -> None:
    with Pool(2) as pool, pytest.raises(ProcessDiedError, match="has died"):
        pool.run(die, [0], lambda *_: True)


def test_what_a_job_raises_is_raised_with_its_traceback() -> None:
    with Pool(1) as pool:
        with pytest.raises(DataError, match="no such file") as caught:
            pool.run(fail, [0], lambda *_: True)
        assert any("in fail" in note for note in caught.value.__notes__)
        # It is of use to others afterwards.
        pool.run(squares, [2], lambda *_: True)


def test_when_the_time_is_over_who_is_at_work_ends(tmp_path: Path) -> None:
    processes: list[int] = []

    def hear(_: int, process: int) -> bool:
        processes.append(process)
        return True

    with Pool(2) as pool:
        pool.run(squares, [1, 1], lambda *_: True)  # Both processes have begun.
        pool.run(wait_for, [tmp_path / "a", tmp_path / "b"], hear, seconds=2)
        assert len(processes) == 2
        assert not any(map(is_alive, processes))


def test_who_is_interrupted_ends_its_processes(tmp_path: Path) -> None:
    processes: list[int] = []

    def hear(_: int, process: int) -> bool:
        processes.append(process)
        raise KeyboardInterrupt

    with Pool(1) as pool, pytest.raises(KeyboardInterrupt):
        pool.run(wait_for, [tmp_path / "a"], hear)
    assert len(processes) == 1
    assert not any(map(is_alive, processes))
