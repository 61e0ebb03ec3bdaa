"""Tasks to learn from and tasks held out, for the shipped specs and the data sets they are for."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from simulation.errors import DataError
from simulation.tasks import keywords, log, omniglot, speech
from simulation.tasks.base import Skew, Tasks
from simulation.tasks.characters import CharacterTasks
from simulation.tasks.logged import LogTasks
from simulation.tasks.sines import SineTasks
from simulation.tasks.speakers import SpeakerTasks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from protocol.fixed import Words
    from protocol.spec.spec import Spec

VOICES: Final = 4
"""Speakers in a home."""
VERSIONS: Final = 5
"""In which a clip is heard, each up to a tenth of a second earlier or later than the first."""
LATEST: Final = 1600
"""Samples in that."""
CHOOSING: Final = 2
"""Seed of the split by which settings are chosen."""


HOW: Final = {"omniglot": omniglot.HOW, "keywords": keywords.HOW, "log": log.HOW}
"""How to give each data set, as messages say it."""
_HOW_ALL: Final = (
    f"Omniglot: {omniglot.HOW}. Speech Commands: {keywords.HOW}. A log of your own: {log.HOW}"
)
_Data = TypeVar("_Data", omniglot.Omniglot, keywords.Keywords, log.Log)


class Split(Enum):
    """What of a data set is whose."""

    IID = "iid"
    """Anybody's: a board has other characters or another home in each round, or rows of all boards
    of a log."""
    ALPHABET = "alphabet"
    """Each board has characters of one alphabet."""
    SPEAKER = "speaker"
    """Each board stays in one home."""
    BOARD = "board"
    """Each board has what one board of a log recorded."""


def tasks_for(
    spec: Spec,
    path: Path | None,
    split: Split | None = None,
    skew: Skew | None = None,
    *,
    hold_out: bool = True,
) -> tuple[Tasks, Tasks | None]:
    """Tasks to learn from and, unless nothing is to be held out, held-out ones.

    Args:
        spec: tells with the path which data these are.
        path: Omniglot, Speech Commands, or a log; None for sines.
        split: whose what is; if not given, BOARD of a log, else IID.
        skew: how unlike the boards' shares of classes are.
        hold_out: whether to keep a fifth of characters, speakers or logged boards for the test.

    Raises:
        DataError: the data are absent, are something else, or do not fit the spec or the split.
    """
    kind = _checked(spec, path)
    if path is None:
        _check_split(split, Split.IID)
        if skew is not None:
            raise DataError("sines have no classes that could be skewed")
        return sine_tasks(spec)
    if kind == "log":
        _check_split(split, Split.IID, Split.BOARD)
        record = log.load(path, spec)
        parts = record.split() if hold_out else (record,)
        learned, *held = _logged(spec, parts, mixed=split is Split.IID, skew=skew)
        return learned, held[0] if held else None
    if kind == "keywords":
        _check_split(split, Split.IID, Split.SPEAKER)
        return speaker_tasks(spec, path, settled=split is Split.SPEAKER, skew=skew)
    _check_split(split, Split.IID, Split.ALPHABET)
    return character_tasks(spec, path, by_alphabet=split is Split.ALPHABET, skew=skew)


def three_ways(spec: Spec, path: Path | None) -> tuple[Tasks, ...]:
    """Tasks to learn from, to choose settings by, and for the test; in this order.

    No character, speaker or logged board is in two of them. No sine is drawn twice.

    Raises:
        DataError: as :func:`tasks_for`.
    """
    kind = _checked(spec, path)
    if path is None:
        return tuple(SineTasks.of(spec) for _ in range(3))
    if kind == "log":
        return tuple(_logged(spec, _thirds(log.load(path, spec))))
    if kind == "keywords":
        return tuple(_spoken(spec, _thirds(keywords.load(path))))
    return tuple(_written(spec, _thirds(omniglot.load(path))))


def _thirds(data: _Data) -> tuple[_Data, _Data, _Data]:
    """A fifth is for the test, and a fifth of what else there is for choosing."""
    rest, tested = data.split()
    learned, validated = rest.split(seed=CHOOSING)
    return learned, validated, tested


def _checked(spec: Spec, path: Path | None) -> str:
    """Which data they are, as :func:`network_of`, and ``sine`` of none; they fit the spec."""
    if path is None:
        _refuse_unless(spec, (1, 1, 1), "mse", "sines")
        return "sine"
    kind = network_of(path)
    if kind == "keywords":
        _refuse_unless(spec, (speech.FRAMES, speech.BANDS, 1), "cross_entropy", "keywords")
    elif kind == "omniglot":
        side = spec.layers[0].height
        _refuse_unless(spec, (side, side, 1), "cross_entropy", "characters")
    return kind


def network_of(path: Path) -> str:
    """Which data lie there: a key of :data:`HOW`, two of which are shipped specs' names.

    Raises:
        DataError: there is nothing.
    """
    if path.suffix in {".csv", ".npy"}:
        return "log"
    if next(path.glob("*/*.wav"), None) is not None:
        return "keywords"
    if path.exists():
        return "omniglot"
    raise DataError(f"{path}: there is no such file or folder. {_HOW_ALL}")


def _refuse_unless(spec: Spec, grid: tuple[int, int, int], loss: str, what: str) -> None:
    first = spec.layers[0]
    found = (first.height, first.width, first.channels)
    if found == grid and spec.model.loss == loss:
        return
    if what == "sines":
        raise DataError(
            "without data boards learn sines, with one input and the loss mse, but this spec's "
            f"model has inputs {found} and the loss {spec.model.loss}. Give its data. {_HOW_ALL}"
        )
    raise DataError(
        f"these are {what}: they take a spec whose model has inputs {grid} and the loss {loss}; "
        f"this one has {found} and {spec.model.loss}"
    )


def _check_split(split: Split | None, *possible: Split) -> None:
    if split is not None and split not in possible:
        names = " or ".join(known.value for known in possible)
        raise DataError(f"these data cannot be split by {split.value}; take {names}")


def sine_tasks(spec: Spec) -> tuple[SineTasks, SineTasks]:
    """Tasks to learn from, and held-out ones: no sine is drawn twice."""
    return SineTasks.of(spec), SineTasks.of(spec)


def character_tasks(
    spec: Spec,
    path: Path,
    *,
    by_alphabet: bool = False,
    skew: Skew | None = None,
    choosing: bool = False,
) -> tuple[CharacterTasks, CharacterTasks]:
    """Tasks to learn from, and held-out ones, which are neither split nor skewed.

    ``choosing``, the held-out ones are not those of the test, which nobody sees, but are taken from
    what else there is to learn from: settings are chosen by them.
    """
    data = omniglot.load(path)
    parts = _thirds(data)[:2] if choosing else data.split()
    first, held = _written(spec, parts, by_alphabet=by_alphabet, skew=skew)
    return first, held


def speaker_tasks(
    spec: Spec,
    path: Path,
    *,
    settled: bool = False,
    skew: Skew | None = None,
    choosing: bool = False,
) -> tuple[SpeakerTasks, SpeakerTasks]:
    """Tasks to learn from, and held-out ones: see :func:`character_tasks`."""
    data = keywords.load(path)
    parts = _thirds(data)[:2] if choosing else data.split()
    first, held = _spoken(spec, parts, settled=settled, skew=skew)
    return first, held


def _written(
    spec: Spec,
    parts: Sequence[omniglot.Omniglot],
    *,
    by_alphabet: bool = False,
    skew: Skew | None = None,
) -> list[CharacterTasks]:
    """The first part is learned from; the others are held out, neither split nor skewed."""
    learned, *held = parts
    first = CharacterTasks.of(spec, learned, turned=True, by_alphabet=by_alphabet, skew=skew)
    return [first] + [CharacterTasks.of(spec, part, turned=False) for part in held]


def _spoken(
    spec: Spec,
    parts: Sequence[keywords.Keywords],
    *,
    settled: bool = False,
    skew: Skew | None = None,
) -> list[SpeakerTasks]:
    """As :func:`_written`."""
    learned, *held = parts
    rng = np.random.default_rng(0)
    shifted = [_features(_moved(learned, rng) if n else learned) for n in range(VERSIONS)]
    features = np.stack(shifted)
    first = SpeakerTasks.of(spec, learned, features, voices=VOICES, settled=settled, skew=skew)
    return [first] + [
        SpeakerTasks.of(spec, part, _features(part)[None], voices=VOICES) for part in held
    ]


def _logged(
    spec: Spec, parts: Sequence[log.Log], *, mixed: bool = False, skew: Skew | None = None
) -> list[LogTasks]:
    """As :func:`_written`."""
    learned, *held = parts
    first = LogTasks.of(spec, learned, mixed=mixed, skew=skew)
    return [first] + [LogTasks.of(spec, part) for part in held]


def _moved(data: keywords.Keywords, rng: np.random.Generator) -> keywords.Keywords:
    """The clips a little earlier or later, with silence in the gap."""
    samples = np.zeros_like(data.samples)
    moves = rng.integers(-LATEST, LATEST + 1, len(samples))
    for new, old, move in zip(samples, data.samples, moves, strict=True):
        new[max(move, 0) : len(new) + min(move, 0)] = old[max(-move, 0) : len(old) - max(move, 0)]
    return keywords.Keywords(samples, data.keyword, data.speaker, data.keywords, data.speakers)


def _features(data: keywords.Keywords) -> Words:
    """In parts, for memory's sake."""
    parts = np.array_split(data.samples, -(-len(data.samples) // 64))
    return np.concatenate([speech.features(part) for part in parts])
