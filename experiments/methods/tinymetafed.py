"""TinyMetaFed, what is left of it when one of its four parts is taken out, and with a plain step.

Each is played by :class:`simulation.run.Run`: round core, codec and messages are those of the
service, and boards compute as they do, but for batches, which boards do not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from experiments.methods import cost
from protocol.spec.model import Model, Pool
from protocol.spec.rounds import Rounds
from protocol.spec.spec import Spec
from simulation.boards import Crew, Trainer
from simulation.conditions import Conditions, Poisoning
from simulation.engine.fixed import Engine
from simulation.engine.float64 import FloatEngine
from simulation.engine.passes import ONLINE, Passes
from simulation.exam import Evaluation, measure
from simulation.run import Run, board_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from simulation.boards import Selection
    from simulation.tasks.base import Tasks

Change = Literal["reconstruction", "top-p", "annealing", "online", "optimizer"]
Arithmetic = Literal["fixed", "float64"]
"""That of the boards, bit for bit, or float64, which is quicker."""
BATCH: Final = 8
"""Samples in a step of a board that stores them."""


def without_local(spec: Spec) -> Spec:
    """The same network with nothing local: all is shared, and all learns from all samples.

    A spec file may not say this: boards have no such mode.
    """
    layers = tuple(
        layer if isinstance(layer, Pool) else layer.model_copy(update={"local": False})
        for layer in spec.model.layers
    )
    fields = {name: getattr(spec.model, name) for name in Model.model_fields} | {"layers": layers}
    return rebuilt(spec, model=Model.model_construct(**fields))


def rebuilt(spec: Spec, **changes: object) -> Spec:
    """A spec that is not checked; a copy would keep what was derived from the original."""
    fields = {name: getattr(spec, name) for name in Spec.model_fields}
    return Spec.model_construct(**fields | changes)


def with_rates(spec: Spec, rate_local: float, rate_global: float) -> Spec:
    """The same with other rates on boards."""
    rates = {"rate_local": rate_local, "rate_global": rate_global}
    return rebuilt(spec, training=spec.training.model_copy(update=rates))


@dataclass(frozen=True)
class Recipe:
    """A spec and what a spec cannot say."""

    spec: Spec
    passes: Passes = ONLINE
    sends: Selection | None = None
    """What boards send, if not their largest changes."""


def recipe(spec: Spec, settings: Mapping[str, float], change: Change | None = None) -> Recipe:
    """TinyMetaFed with these settings.

    Args:
        spec: what is not among the settings.
        settings: ``rate_local``, ``rate_global``, ``step_max``, and of batches ``epochs``.
        change: the part that is taken out; ``optimizer`` leaves the paper's plain step.
    """
    spec = with_rates(spec, settings.get("rate_local", 0.1), settings["rate_global"])
    rounds = spec.rounds.model_dump() | {"step_max": settings["step_max"]}
    passes = ONLINE
    match change:
        case "reconstruction":
            spec = without_local(spec)
        case "top-p":
            training = spec.training.model_copy(update={"percent": 100.0})
            spec = rebuilt(spec, training=training)
            rounds["percent_down"] = 100.0
        case "annealing":
            rounds["step_min"] = rounds["step_max"]
        case "optimizer":
            rounds["optimizer"] = {"rule": "step"}
        case "online":
            passes = Passes(BATCH, int(settings["epochs"]))
    return Recipe(rebuilt(spec, rounds=Rounds.model_validate(rounds)), passes)


class TinyMetaFed:
    """A fleet that learns by a recipe; as many boards as a round invites.

    Args:
        made: the recipe.
        learned: what its boards learn from.
        seed: of all that is random.
        arithmetic: of the boards; batches are always learned in float64.
    """

    def __init__(
        self, made: Recipe, learned: Tasks, seed: int, *, arithmetic: Arithmetic = "fixed"
    ) -> None:
        spec = made.spec
        self._spec, self._passes = spec, made.passes
        self._engine: type[Engine | FloatEngine] = (
            FloatEngine if arithmetic == "float64" or made.passes.batch > 1 else Engine
        )
        names = board_names(spec.rounds.cohort)
        trainer = Trainer(
            spec=spec,
            names=names,
            tasks=learned,
            engine=self._engine,
            poisoned=Poisoning(),
            seed=seed,
            passes=made.passes,
            sends=made.sends,
        )
        self._run = Run(spec, names, Crew(trainer), Conditions(), seed)
        self._per_round = len(names) * cost.round_operations(spec, made.passes)
        self.bytes_up = self.bytes_down = self.operations = 0

    def play(self) -> Iterator[int]:
        """Play the rounds; yields how many are over after each."""
        for record in self._run.rounds():
            self.bytes_up += record.bytes_up
            self.bytes_down += record.bytes_down
            self.operations += self._per_round
            yield record.round + 1

    @property
    def published(self) -> NDArray[np.int16]:
        """The version that boards have."""
        return self._run.model.published

    def measure(self, tasks: Tasks, count: int, seed: int) -> Evaluation:
        """What boards make of the model with so many tasks."""
        engine = self._engine(self._spec, count)
        return measure(self._spec, self.published, tasks, engine, seed, passes=self._passes)
