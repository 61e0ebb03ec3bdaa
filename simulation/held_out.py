"""Tasks to learn from and tasks held out, for the shipped specs and the data sets they are for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from simulation import speech
from simulation.data import keywords, omniglot
from simulation.tasks import CharacterTasks, SineTasks, SpeakerTasks, Tasks

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


def sine_tasks(spec: Spec) -> tuple[Tasks, Tasks]:
    """Tasks to learn from, and held-out ones: no sine is drawn twice."""
    return SineTasks.of(spec), SineTasks.of(spec)


def character_tasks(spec: Spec, path: Path) -> tuple[Tasks, Tasks]:
    """Tasks to learn from, and held-out ones."""
    learned, tested = omniglot.load(path).split()
    return (
        CharacterTasks.of(spec, learned, turned=True),
        CharacterTasks.of(spec, tested, turned=False),
    )


def speaker_tasks(spec: Spec, path: Path) -> tuple[Tasks, Tasks]:
    """Tasks to learn from, and held-out ones."""
    learned, tested = keywords.load(path).split()
    rng = np.random.default_rng(0)
    shifted = [_features(_moved(learned, rng) if n else learned) for n in range(VERSIONS)]
    return (
        SpeakerTasks.of(spec, learned, np.stack(shifted), voices=VOICES),
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
