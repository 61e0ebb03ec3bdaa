"""How well a fleet's start serves boards with characters or speakers that it has never met.

    .cache/venv/bin/python tools/few_shot.py specs/omniglot.toml --data images_background
    .cache/venv/bin/python tools/few_shot.py specs/keywords.toml --data speech_commands

A fifth of the characters or speakers is held out. Prints, every so many rounds, the accuracy of
boards that have learned from their support samples, on query samples: for held-out tasks, and for
those that the fleet learns from.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protocol.errors import SpecError
from protocol.fixed import Words
from protocol.spec import Spec
from simulation import speech
from simulation.data import keywords, omniglot
from simulation.errors import DataError
from simulation.fleet import accuracy, play
from simulation.tasks import CharacterTasks, SpeakerTasks, Tasks

VOICES = 4
"""Speakers in a home."""
VERSIONS = 5
"""In which a clip is heard, each up to a tenth of a second earlier or later than the first."""
LATEST = 1600
"""Samples in that."""


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


def main() -> None:
    """Play the rounds."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("spec", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="the data set, as it is published")
    parser.add_argument("--every", type=int, default=100, help="rounds from a test to the next")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        spec = Spec.from_file(options.spec)
        tasks = speaker_tasks if spec.layers[0].height == speech.FRAMES else character_tasks
        learned, tested = tasks(spec, options.data)
    except (SpecError, DataError) as error:
        sys.exit(str(error))
    start = time.monotonic()

    def test(round_: int, published: NDArray[np.int16]) -> None:
        share, doubt = accuracy(spec, published, tested)
        known, _ = accuracy(spec, published, learned)
        print(
            f"round {round_:5}  held out {share:6.1%} +- {doubt:.1%}  learned from {known:6.1%}  "
            f"({time.monotonic() - start:.0f} s)",
            flush=True,
        )

    test(0, spec.start())
    for model in play(spec, learned, options.seed):
        if model.version % options.every == 0:
            test(model.version, model.published)


if __name__ == "__main__":
    main()
