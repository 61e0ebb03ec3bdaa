"""A user's own record of sensors: which board met what, and what it was.

A CSV file has a first line that names its columns: ``board``, ``label``, and one for each input,
called as you like, in the order in which boards see them. An ``.npy`` file has a row a sample, and
the same columns without names: the board's number, the label, the inputs. A label is a value where
the spec's loss is the squared error; else a class, by its number or by a name.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from protocol import fixed
from simulation.errors import DataError
from simulation.tasks.split import held_out

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from protocol.fixed import Words
    from protocol.spec.spec import Spec

HOW: Final = (
    "give a CSV file whose first line is `board,label,` and a name for each input, or an .npy of "
    "shape (samples, 2 + inputs)"
)
LARGEST: Final = (fixed.ACTIVATION_MAX + 1) / 2**fixed.ACTIVATION_BITS
"""No value that a board holds is larger."""


@dataclass(frozen=True)
class Log:
    """Rows of a record."""

    name: str
    """The file's, for messages."""
    x: Words
    """Activations, shape (rows, inputs)."""
    y: Words
    """Labels as activations, or classes; shape (rows, 1)."""
    board: NDArray[np.int64]
    """Which of ``boards`` each row is of; shape (rows,)."""
    boards: tuple[str, ...]

    def split(self, share: float = 0.2, seed: int = 1) -> tuple[Log, Log]:
        """Boards to learn from, and about ``share`` of them that are held out.

        Raises:
            DataError: there is no board for one of the two.
        """
        is_test = held_out(self.boards, share, seed)
        if is_test.all() or not is_test.any():
            raise DataError(
                f"{self.name}: {len(self.boards)} boards are too few to hold some of them out: "
                f"record more, or hold nothing out"
            )
        return self._some(~is_test), self._some(is_test)

    def _some(self, chosen: NDArray[np.bool_]) -> Log:
        """What these boards recorded; they are numbered anew."""
        rows = chosen[self.board]
        number = np.cumsum(chosen) - 1
        names = tuple(name for name, one in zip(self.boards, chosen, strict=True) if one)
        return Log(self.name, self.x[rows], self.y[rows], number[self.board[rows]], names)


def load(path: Path, spec: Spec) -> Log:
    """Read a record that fits a spec.

    Raises:
        DataError: there is none, or something else: with the line, the column, and what to do.
    """
    try:
        rows = _table(path) if path.suffix == ".npy" else list(_lines(path))
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file; {HOW}") from error
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {HOW}") from error
    if not rows:
        raise DataError(f"{path}: holds no samples; {HOW}")
    inputs = spec.layers[0].words_in
    found = len(rows[0][1]) - 2
    if found != inputs:
        raise DataError(
            f"{path}: {found} columns of inputs; the spec's model takes {inputs} (inputs)"
        )
    boards, board = np.unique([cells[0] for _, cells in rows], return_inverse=True)
    x = np.array([[_number(path, at, i + 3, c) for i, c in enumerate(cs[2:])] for at, cs in rows])
    labels = [(at, cells[1]) for at, cells in rows]
    y = _classes(path, labels, spec) if spec.is_classifier else _values(path, labels, spec)
    return Log(str(path), fixed.to_activation(x), y, board, tuple(boards.tolist()))


Row = tuple[str, "Sequence[str]"]
"""Where it stands, and its cells."""


def _lines(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        head = [name.strip() for name in next(reader, [])]
        if head[:2] != ["board", "label"] or len(head) < 3:
            raise DataError(f"{path}:1: the first line is {','.join(head)[:60]!r}; {HOW}")
        for cells in reader:
            if not cells:
                continue
            at = f"line {reader.line_num}"
            if len(cells) != len(head):
                raise DataError(
                    f"{path}: {at} has {len(cells)} columns; the first line names {len(head)}"
                )
            yield at, [cell.strip() for cell in cells]


def _table(path: Path) -> list[Row]:
    table = np.load(path, allow_pickle=False)
    if table.ndim != 2 or table.shape[1] < 3 or table.dtype.kind not in "iuf":
        raise DataError(f"{path}: an array of {table.dtype} and shape {table.shape}; {HOW}")
    return [(f"row {i}", [f"{cell:.9g}" for cell in row]) for i, row in enumerate(table.tolist())]


def _number(path: Path, at: str, column: int, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if not abs(value) < LARGEST:
        raise DataError(
            f"{path}: {at}, column {column}: {cell!r} is no number between -{LARGEST:.0f} and "
            f"{LARGEST:.0f}, all that a board can hold: scale the column, or leave the line out"
        )
    return value


def _values(path: Path, labels: Sequence[tuple[str, str]], spec: Spec) -> Words:
    outputs = spec.layers[-1].outputs
    if outputs != 1:
        raise DataError(f"{path}: has one label a row; the spec's model answers with {outputs}")
    return fixed.to_activation(np.array([[_number(path, at, 2, cell)] for at, cell in labels]))


def _classes(path: Path, labels: Sequence[tuple[str, str]], spec: Spec) -> Words:
    outputs = spec.layers[-1].outputs
    numbers = {str(class_): class_ for class_ in range(outputs)}
    names = sorted({cell for _, cell in labels})
    if not set(names) <= set(numbers):
        if len(names) > outputs:
            raise DataError(
                f"{path}: column 2: {len(names)} classes ({', '.join(names[:5])}, ...); the spec's "
                f"model tells {outputs} (the outputs of its last layer)"
            )
        numbers = {name: class_ for class_, name in enumerate(names)}
    return np.array([[numbers[cell]] for _, cell in labels])
