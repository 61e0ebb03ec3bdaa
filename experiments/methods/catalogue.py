"""The methods that are compared, each with what there is to choose about it.

Names are those of results.json: a method, and behind a ``/`` one that differs from it in one thing.
A range of settings reaches to both sides of what the method's authors or the shipped specs take,
which is the first trial of every search.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from experiments.methods import baselines as rivals
from experiments.methods import cost
from experiments.methods.baselines import Alone, Habits, Rival
from experiments.methods.tinymetafed import BATCH, Fleet, recipe, with_rates
from experiments.methods.transfer import Pooling, Transfer
from protocol.spec import heap
from simulation.engine.passes import Passes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from experiments.harness.scenario import Samples
    from experiments.methods.tinymetafed import Change
    from protocol.spec.spec import Spec
    from simulation.exam import Evaluation
    from simulation.tasks.base import Tasks

Settings = dict[str, float]


class Learner(Protocol):
    """A fleet that learns by some method."""

    bytes_up: int
    """That all boards have sent so far."""
    bytes_down: int
    operations: int
    """Multiply-accumulates of all boards so far."""

    def play(self) -> Iterator[int]:
        """Play the rounds; each is told when it is over, by how many there were."""

    def measure(self, tasks: Tasks, count: int, seed: int) -> Evaluation:
        """What boards make of the model with so many tasks."""


@dataclass(frozen=True)
class Range:
    """A setting's values, on a logarithmic scale."""

    low: float
    high: float
    whole: bool = False
    """Whether they are whole numbers."""


@dataclass(frozen=True)
class Method:
    """One that is compared."""

    about: str
    ranges: Callable[[Spec], Mapping[str, Range]]
    """Of the settings that are searched."""
    first: Callable[[Spec], Settings]
    """The settings that are tried first."""
    learner: Callable[[Spec, Settings, Samples, int, bool], Learner]
    """Spec, settings, what to learn from, seed, and whether fixed point may be left for speed.

    A rival always leaves it."""
    arrays: Callable[[Spec, Settings], int] | None
    """Bytes of a board's arrays; None where no board trains."""


RATE: Final = Range(0.002, 0.3)
STEP: Final = Range(0.2, 5.0)
ADAPTIVE: Final = Range(0.005, 0.3)
"""A step of Adam's and its kin goes about so far in each parameter."""
PLAIN_START: Final = 3.0
"""The first plain step that is tried where the spec's own step is for another optimizer."""
EPOCHS: Final = Range(1, 8, whole=True)


def _step_of(spec: Spec) -> Range:
    """The range of the step, which has another meaning to each optimizer."""
    return STEP if spec.rounds.optimizer.rule in {"step", "avgm"} else ADAPTIVE


def _fleet(change: Change | None, about: str) -> Method:
    def ranges(spec: Spec) -> Mapping[str, Range]:
        searched = {"rate_global": RATE, "step_max": _step_of(spec)}
        if change != "reconstruction":
            searched = {"rate_local": RATE} | searched
        if change == "optimizer":
            searched["step_max"] = STEP
        if change == "online":
            searched["epochs"] = EPOCHS
        return searched

    def first(spec: Spec) -> Settings:
        training, step = spec.training, spec.rounds.step_max
        known = {
            "rate_local": training.rate_local,
            "rate_global": training.rate_global,
            "step_max": {"annealing": step / 2, "optimizer": PLAIN_START}.get(change or "", step),
            "epochs": 2.0,
        }
        return {name: known[name] for name in ranges(spec)}

    def arrays(spec: Spec, settings: Settings) -> int:
        made = recipe(spec, settings, change)
        if made.passes.batch > 1:
            return cost.rival_memory(made.spec, made.passes)
        needed = heap.needed(made.spec.layers, made.spec.plan)
        return sum(needed.values()) - needed["client"] - needed["objects"]

    return Method(
        *(about, ranges, first),
        lambda spec, settings, tasks, seed, real: Fleet(
            recipe(spec, settings, change), tasks, seed, real=real
        ),
        arrays,
    )


def _rival(
    about: str,
    ranges: Mapping[str, Range],
    start: Settings,
    habits: Callable[[Spec, Settings], Habits],
    kind: type[Rival] = Rival,
) -> Method:
    """A rival whose ranges and start do not depend on the spec."""
    return _rival_of_spec(about, lambda _: ranges, lambda _: start, habits, kind)


def _rival_of_spec(
    about: str,
    ranges: Callable[[Spec], Mapping[str, Range]],
    first: Callable[[Spec], Settings],
    habits: Callable[[Spec, Settings], Habits],
    kind: type[Rival] = Rival,
) -> Method:
    def arrays(spec: Spec, settings: Settings) -> int:
        made = habits(spec, settings)
        return cost.rival_memory(made.spec, made.passes)

    return Method(
        *(about, ranges, first),
        lambda spec, settings, tasks, seed, _: kind(habits(spec, settings), tasks, seed),
        arrays,
    )


def _reptile(
    spec: Spec, settings: Settings, *, online: bool, serial: bool = False, optimizer: bool = False
) -> Habits:
    passes = Passes() if online else Passes(BATCH, int(settings["epochs"]))
    return Habits(
        rivals.whole(spec, settings["rate"]),
        passes,
        settings["step"],
        falls=True,
        serial=serial,
        optimizer=optimizer,
    )


def _fedavg(spec: Spec, settings: Settings) -> Habits:
    return Habits(rivals.whole(spec, settings["rate"]), Passes(BATCH, int(settings["epochs"])))


def _fedsgd(spec: Spec, settings: Settings) -> Habits:
    """One step a round, on all samples at once."""
    samples = spec.training.support + spec.training.query
    return Habits(rivals.whole(spec, settings["rate"]), Passes(samples), settings["step"])


def _fedrecon(spec: Spec, settings: Settings) -> Habits:
    spec = with_rates(spec, settings["rate_local"], settings["rate_global"])
    return Habits(spec, Passes(BATCH, int(settings["epochs"])), settings["step"])


def _scratch(spec: Spec, settings: Settings) -> Habits:
    return Habits(rivals.whole(spec, settings["rate"]), Passes(1, int(settings["epochs"])))


def _pooling(settings: Settings) -> Pooling:
    passes = Passes(BATCH, int(settings["epochs"]))
    return Pooling(settings["rate"], settings["rate_board"], passes)


_ONE = {"rate": RATE, "step": Range(0.03, 3.0)}
_REPTILE_START = {"rate": 0.02, "step": 1.0}

METHODS: Final[dict[str, Method]] = {
    "tinymetafed": _fleet(None, "all four parts, in the board's own arithmetic"),
    "tinymetafed/no-reconstruction": _fleet(
        "reconstruction", "no layer is local: all are shared, and all adapt"
    ),
    "tinymetafed/no-top-p": _fleet("top-p", "all changes are sent, up and down"),
    "tinymetafed/no-annealing": _fleet("annealing", "the server's step stays the same"),
    "tinymetafed/no-online": _fleet(
        "online", "samples are stored and learned in batches, several times (float64)"
    ),
    "tinymetafed/plain-step": _fleet(
        "optimizer", "the server follows the mean change by the paper's plain step"
    ),
    "tinyreptile": _rival(
        "online; the boards of a round start from the same model, as everywhere here",
        _ONE,
        _REPTILE_START,
        partial(_reptile, online=True),
    ),
    "tinyreptile/serial": _rival(
        "one board after the other, as published: as many hand-overs in a round as boards",
        _ONE,
        {"rate": 0.02, "step": 0.1},
        partial(_reptile, online=True, serial=True),
    ),
    "tinyreptile/optimizer": _rival_of_spec(
        "the server follows the mean change by TinyMetaFed's optimizer",
        lambda spec: {"rate": RATE, "step": _step_of(spec)},
        lambda spec: {"rate": 0.02, "step": spec.rounds.step_max},
        partial(_reptile, online=True, optimizer=True),
    ),
    "reptile": _rival(
        "batches, several times; the mean of a cohort",
        _ONE | {"epochs": EPOCHS},
        _REPTILE_START | {"epochs": 2.0},
        partial(_reptile, online=False),
    ),
    "fedavg": _rival(
        "batches, several times; the mean is the next model",
        {"rate": RATE, "epochs": EPOCHS},
        {"rate": 0.02, "epochs": 2.0},
        _fedavg,
    ),
    "fedavg/fedsgd": _rival(
        "one gradient a board; the step follows the mean",
        {"rate": RATE, "step": STEP},
        {"rate": 0.05, "step": 1.0},
        _fedsgd,
    ),
    "fedrecon": _rival(
        "local layers are rebuilt in batches, global ones sent whole",
        {"rate_local": RATE, "rate_global": RATE, "step": STEP, "epochs": EPOCHS},
        {"rate_local": 0.1, "rate_global": 0.05, "step": 1.0, "epochs": 2.0},
        _fedrecon,
    ),
    "transfer": Method(
        "all samples are sent to one place, which learns; boards fine-tune",
        lambda _: {"rate": RATE, "rate_board": RATE, "epochs": EPOCHS},
        lambda _: {"rate": 0.05, "rate_board": 0.02, "epochs": 2.0},
        lambda spec, settings, tasks, seed, _: Transfer(spec, _pooling(settings), tasks, seed),
        None,
    ),
    "scratch": _rival(
        "each board on its own, from the seeded start, one sample at a time, several times",
        {"rate": RATE, "epochs": EPOCHS},
        {"rate": 0.02, "epochs": 2.0},
        _scratch,
        Alone,
    ),
}
"""In the order of tables."""

_OTHER_OPTIMIZER: Final = ("tinymetafed/plain-step", "tinyreptile/optimizer")
"""They say nothing new where the spec's server takes the plain step."""


def for_spec(spec: Spec) -> list[str]:
    """Names of the methods that differ from each other with this spec."""
    plain = spec.rounds.optimizer.rule == "step"
    return [name for name in METHODS if not (plain and name in _OTHER_OPTIMIZER)]
