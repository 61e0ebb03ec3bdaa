"""Tasks to learn from and tasks held out, for the shipped specs and the data sets they are for."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

import numpy as np

from simulation import speech
from simulation.data import keywords, log, omniglot
from simulation.errors import DataError
from simulation.tasks import CharacterTasks, LogTasks, SineTasks, Skew, SpeakerTasks, Tasks

if TYPE_CHECKING:
    from pathlib import Path

    from protocol.fixed import Words
    from protocol.spec import Spec

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
    if path is None:
        _refuse_unless(spec, (1, 1, 1), "mse", "sines")
        _check_split(split, Split.IID)
        if skew is not None:
            raise DataError("sines have no classes that could be skewed")
        return sine_tasks(spec)
    kind = network_of(path)
    if kind == "log":
        _check_split(split, Split.IID, Split.BOARD)
        record = log.load(path, spec)
        learned, tested = record.split() if hold_out else (record, None)
        return (
            LogTasks.of(spec, learned, mixed=split is Split.IID, skew=skew),
            LogTasks.of(spec, tested) if tested else None,
        )
    if kind == "keywords":
        _refuse_unless(spec, (speech.FRAMES, speech.BANDS, 1), "cross_entropy", "keywords")
        _check_split(split, Split.IID, Split.SPEAKER)
        return speaker_tasks(spec, path, settled=split is Split.SPEAKER, skew=skew)
    side = spec.layers[0].height
    _refuse_unless(spec, (side, side, 1), "cross_entropy", "characters")
    _check_split(split, Split.IID, Split.ALPHABET)
    return character_tasks(spec, path, by_alphabet=split is Split.ALPHABET, skew=skew)


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
    raise DataError(
        f"{path}: there is no such file or folder. Omniglot: {omniglot.HOW}. Speech Commands: "
        f"{keywords.HOW}. A log of your own: {log.HOW}"
    )


def _refuse_unless(spec: Spec, grid: tuple[int, int, int], loss: str, what: str) -> None:
    first = spec.layers[0]
    found = (first.height, first.width, first.channels)
    if found == grid and spec.model.loss == loss:
        return
    if what == "sines":
        raise DataError(
            "without data boards learn sines, with one input and the loss mse, but this spec's "
            f"model has inputs {found} and the loss {spec.model.loss}. Give its data. Omniglot: "
            f"{omniglot.HOW}. Speech Commands: {keywords.HOW}. A log of your own: {log.HOW}"
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
    learned, tested = omniglot.load(path).split()
    if choosing:
        learned, tested = learned.split(seed=CHOOSING)
    return (
        CharacterTasks.of(spec, learned, turned=True, by_alphabet=by_alphabet, skew=skew),
        CharacterTasks.of(spec, tested, turned=False),
    )


def speaker_tasks(
    spec: Spec,
    path: Path,
    *,
    settled: bool = False,
    skew: Skew | None = None,
    choosing: bool = False,
) -> tuple[SpeakerTasks, SpeakerTasks]:
    """Tasks to learn from, and held-out ones: see :func:`character_tasks`."""
    learned, tested = keywords.load(path).split()
    if choosing:
        learned, tested = learned.split(seed=CHOOSING)
    rng = np.random.default_rng(0)
    shifted = [_features(_moved(learned, rng) if n else learned) for n in range(VERSIONS)]
    features = np.stack(shifted)
    return (
        SpeakerTasks.of(spec, learned, features, voices=VOICES, settled=settled, skew=skew),
        SpeakerTasks.of(spec, tested, _features(tested)[None], voices=VOICES),
    )


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
