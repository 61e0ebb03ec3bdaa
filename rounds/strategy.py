"""How far the global model follows the mean of a round's changes."""

from math import cos, pi

from protocol.spec import Rounds


def cosine_step(rounds: Rounds, round_: int) -> float:
    """The paper's rule: from ``step_max`` in round 0 along half a cosine towards ``step_min``."""
    swing = (rounds.step_max - rounds.step_min) / 2
    return rounds.step_min + swing * (1 + cos(pi * round_ / rounds.count))
