"""A user's own record is read, or what is wrong in it is told with line and column."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulation.errors import DataError
from simulation.tasks import log
from tests.support.specs import LETTERS, SINES, make_spec

HEAD = "board,label,a\n"


def test_a_log_as_csv_and_as_npy_say_the_same(tmp_path: Path) -> None:
    spec = make_spec(**SINES)
    (tmp_path / "log.csv").write_text(HEAD + "1,0.5,-1.25\n\n0, 2 ,3\n")
    np.save(tmp_path / "log.npy", np.array([[1, 0.5, -1.25], [0, 2, 3]]))
    for name in ("log.csv", "log.npy"):
        data = log.load(tmp_path / name, spec)
        assert data.boards == ("0", "1")
        assert data.board.tolist() == [1, 0]
        assert (data.x / 512).tolist() == [[-1.25], [3]]
        assert (data.y / 512).tolist() == [[0.5], [2]]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["2", "0", "1"], [2, 0, 1]),
        (["off", "on", "idle"], [1, 2, 0]),
        (["7", "9", "7"], [0, 1, 0]),
    ],
)
def test_classes_have_numbers_or_names(tmp_path: Path, labels: list[str], classes: Any) -> None:
    spec = make_spec(**LETTERS)
    inputs = [f"x{i}" for i in range(spec.layers[0].words_in)]
    lines = [["board", "label", *inputs]]
    lines += [["b", label] + ["0"] * len(inputs) for label in labels]
    (tmp_path / "log.csv").write_text("\n".join(map(",".join, lines)))
    assert log.load(tmp_path / "log.csv", spec).y[:, 0].tolist() == classes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file; give a CSV"),
        ("", "the first line is ''"),
        ("time,label,a\n", r"log.csv:1: the first line is 'time,label,a'; give a CSV"),
        ("board,label\n", "the first line is"),
        (HEAD, "holds no samples"),
        (HEAD + "b,1,2,3\n", "line 2 has 4 columns; the first line names 3"),
        (HEAD + "b,1,2\nb,1,x\n", "line 3, column 3: 'x' is no number between -16 and 16"),
        (HEAD + "b,1,2\nb,nan,1\n", "line 3, column 2: 'nan' is no number"),
        (HEAD + "b,1,1023\n", "line 2, column 3: '1023' .*scale the column"),
        ("board,label,a,b\nb,1,2,3\n", "2 columns of inputs; the spec's model takes 1"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_what_is_not_a_log_is_refused(tmp_path: Path, text: Any, message: str) -> None:
    path = tmp_path / "log.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message) as caught:
        log.load(path, make_spec(**SINES))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "table", [np.zeros(3), np.zeros((2, 2)), np.zeros((2, 3), "U3"), np.array([[0, 0, np.inf]])]
)
def test_what_is_not_a_table_is_refused(tmp_path: Path, table: Any) -> None:
    np.save(tmp_path / "log.npy", table)
    with pytest.raises(DataError, match=r"log.npy: (an array of|row 0, column 3)"):
        log.load(tmp_path / "log.npy", make_spec(**SINES))
    (tmp_path / "log.npy").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"log.npy: cannot be read"):
        log.load(tmp_path / "log.npy", make_spec(**SINES))


def test_more_classes_than_outputs_are_refused(tmp_path: Path) -> None:
    spec = make_spec(**LETTERS)
    width = spec.layers[0].words_in
    rows = [f"b,class {i}" + ",0" * width for i in range(4)]
    head = ",".join(["board", "label", *map(str, range(width))])
    (tmp_path / "log.csv").write_text("\n".join([head, *rows]))
    with pytest.raises(DataError, match=r"4 classes \(class 0, .*model tells 3"):
        log.load(tmp_path / "log.csv", spec)
