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
from protocol.spec import Spec
from simulation import speech
from simulation.engine import Engine
from simulation.errors import DataError
from simulation.fleet import measure, play
from simulation.held_out import character_tasks, speaker_tasks

BOARDS = 200
"""In a test."""


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
    tester = Engine(spec, BOARDS)
    start = time.monotonic()

    def test(round_: int, published: NDArray[np.int16]) -> None:
        share = measure(spec, published, tested, tester).accuracy
        known = measure(spec, published, learned, tester).accuracy
        print(
            f"round {round_:5}  held out {share.mean():6.1%} +- {share.std() / BOARDS**0.5:.1%}  "
            f"learned from {known.mean():6.1%}  "
            f"({time.monotonic() - start:.0f} s)",
            flush=True,
        )

    test(0, spec.start())
    for model in play(spec, learned, Engine(spec, spec.rounds.cohort), options.seed):
        if model.version % options.every == 0:
            test(model.version, model.published)


if __name__ == "__main__":
    main()
