"""The methods that are compared, each with what there is to choose about it.

Names are those of results.json: a method, and behind a ``/`` one that differs from it in one thing.
A range of settings reaches to both sides of what the method's authors or the shipped specs take,
which is the first that every search tries.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from experiments.methods import cost
from experiments.methods.baselines import Baseline, Habits, Scratch, whole
from experiments.methods.tinymetafed import BATCH, TinyMetaFed, recipe, with_rates
from experiments.methods.transfer import Pooling, Transfer
from protocol.spec import heap
from simulation.engine.passes import Passes
from tuning.search import Range

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from experiments.harness.scenario import Samples
    from experiments.methods.tinymetafed import Arithmetic, Change
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
        """Play the rounds; yields how many are over after each."""

    def measure(self, tasks: Tasks, count: int, seed: int) -> Evaluation:
        """What boards make of the model with so many tasks."""


class MakeLearner(Protocol):
    """Makes the learner of a method."""

    def __call__(
        self, spec: Spec, settings: Settings, tasks: Samples, seed: int, arithmetic: Arithmetic
    ) -> Learner:
        """With these settings, for tasks to learn from; baselines always compute in float64."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One that is compared."""

    about: str
    ranges: Callable[[Spec], Mapping[str, Range]]
    """Of the settings that are searched."""
    first: Callable[[Spec], Settings]
    """The settings that are tried first."""
    learner: MakeLearner
    arrays: Callable[[Spec, Settings], int] | None
    """Bytes of a board's arrays; None where no board trains."""
    variant_of: str | None = None
    """The method from which it differs in one thing."""


OURS: Final = "tinymetafed"
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


def _tinymetafed(about: str, change: Change | None = None) -> Method:
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

    def learner(
        spec: Spec, settings: Settings, tasks: Samples, seed: int, arithmetic: Arithmetic
    ) -> Learner:
        return TinyMetaFed(recipe(spec, settings, change), tasks, seed, arithmetic=arithmetic)

    def arrays(spec: Spec, settings: Settings) -> int:
        made = recipe(spec, settings, change)
        if made.passes.batch > 1:
            return cost.baseline_memory(made.spec, made.passes)
        needed = heap.needed(made.spec.layers, made.spec.plan)
        return sum(needed.values()) - needed["client"] - needed["objects"]

    return Method(
        about=about,
        ranges=ranges,
        first=first,
        learner=learner,
        arrays=arrays,
        variant_of=None if change is None else OURS,
    )


def _baseline(  # noqa: PLR0913 - by keyword
    about: str,
    *,
    ranges: Callable[[Spec], Mapping[str, Range]],
    first: Callable[[Spec], Settings],
    habits: Callable[[Spec, Settings], Habits],
    kind: type[Baseline] = Baseline,
    variant_of: str | None = None,
) -> Method:
    def learner(
        spec: Spec, settings: Settings, tasks: Samples, seed: int, arithmetic: Arithmetic
    ) -> Learner:
        del arithmetic
        return kind(habits(spec, settings), tasks, seed)

    def arrays(spec: Spec, settings: Settings) -> int:
        made = habits(spec, settings)
        return cost.baseline_memory(made.spec, made.passes)

    return Method(
        about=about,
        ranges=ranges,
        first=first,
        learner=learner,
        arrays=arrays,
        variant_of=variant_of,
    )


def _reptile(
    spec: Spec, settings: Settings, *, online: bool, serial: bool = False, optimizer: bool = False
) -> Habits:
    return Habits(
        spec=whole(spec, settings["rate"]),
        passes=Passes() if online else Passes(BATCH, int(settings["epochs"])),
        step=settings["step"],
        falls=True,
        serial=serial,
        optimizer=optimizer,
    )


def _fedavg(spec: Spec, settings: Settings) -> Habits:
    passes = Passes(BATCH, int(settings["epochs"]))
    return Habits(spec=whole(spec, settings["rate"]), passes=passes)


def _fedsgd(spec: Spec, settings: Settings) -> Habits:
    """One step a round, on all samples at once."""
    passes = Passes(spec.training.support + spec.training.query)
    return Habits(spec=whole(spec, settings["rate"]), passes=passes, step=settings["step"])


def _fedrecon(spec: Spec, settings: Settings) -> Habits:
    spec = with_rates(spec, settings["rate_local"], settings["rate_global"])
    passes = Passes(BATCH, int(settings["epochs"]))
    return Habits(spec=spec, passes=passes, step=settings["step"])


def _scratch(spec: Spec, settings: Settings) -> Habits:
    passes = Passes(1, int(settings["epochs"]))
    return Habits(spec=whole(spec, settings["rate"]), passes=passes)


def _transfer(
    spec: Spec, settings: Settings, tasks: Samples, seed: int, arithmetic: Arithmetic
) -> Learner:
    del arithmetic
    passes = Passes(BATCH, int(settings["epochs"]))
    pooling = Pooling(rate=settings["rate"], rate_board=settings["rate_board"], passes=passes)
    return Transfer(spec, pooling, tasks, seed)


_ONE = {"rate": RATE, "step": Range(0.03, 3.0)}
_REPTILE_START = {"rate": 0.02, "step": 1.0}

METHODS: Final[dict[str, Method]] = {
    OURS: _tinymetafed("all four parts, in the board's own arithmetic"),
    f"{OURS}/no-reconstruction": _tinymetafed(
        "no layer is local: all are shared, and all adapt", "reconstruction"
    ),
    f"{OURS}/no-top-p": _tinymetafed("all changes are sent, up and down", "top-p"),
    f"{OURS}/no-annealing": _tinymetafed("the server's step stays the same", "annealing"),
    f"{OURS}/no-online": _tinymetafed(
        "samples are stored and learned in batches, several times (float64)", "online"
    ),
    f"{OURS}/plain-step": _tinymetafed(
        "the server follows the mean change by the paper's plain step", "optimizer"
    ),
    "tinyreptile": _baseline(
        "online; the boards of a round start from the same model, as everywhere here",
        ranges=lambda _: _ONE,
        first=lambda _: _REPTILE_START,
        habits=partial(_reptile, online=True),
    ),
    "tinyreptile/serial": _baseline(
        "one board after the other, as published: as many hand-overs in a round as boards",
        ranges=lambda _: _ONE,
        first=lambda _: {"rate": 0.02, "step": 0.1},
        habits=partial(_reptile, online=True, serial=True),
        variant_of="tinyreptile",
    ),
    "tinyreptile/optimizer": _baseline(
        "the server follows the mean change by TinyMetaFed's optimizer",
        ranges=lambda spec: {"rate": RATE, "step": _step_of(spec)},
        first=lambda spec: {"rate": 0.02, "step": spec.rounds.step_max},
        habits=partial(_reptile, online=True, optimizer=True),
        variant_of="tinyreptile",
    ),
    "reptile": _baseline(
        "batches, several times; the mean of a cohort",
        ranges=lambda _: _ONE | {"epochs": EPOCHS},
        first=lambda _: _REPTILE_START | {"epochs": 2.0},
        habits=partial(_reptile, online=False),
    ),
    "fedavg": _baseline(
        "batches, several times; the mean is the next model",
        ranges=lambda _: {"rate": RATE, "epochs": EPOCHS},
        first=lambda _: {"rate": 0.02, "epochs": 2.0},
        habits=_fedavg,
    ),
    "fedavg/fedsgd": _baseline(
        "one gradient a board; the step follows the mean",
        ranges=lambda _: {"rate": RATE, "step": STEP},
        first=lambda _: {"rate": 0.05, "step": 1.0},
        habits=_fedsgd,
        variant_of="fedavg",
    ),
    "fedrecon": _baseline(
        "local layers are rebuilt in batches, global ones sent whole",
        ranges=lambda _: {"rate_local": RATE, "rate_global": RATE, "step": STEP, "epochs": EPOCHS},
        first=lambda _: {"rate_local": 0.1, "rate_global": 0.05, "step": 1.0, "epochs": 2.0},
        habits=_fedrecon,
    ),
    "transfer": Method(
        about="all samples are sent to one place, which learns; boards fine-tune",
        ranges=lambda _: {"rate": RATE, "rate_board": RATE, "epochs": EPOCHS},
        first=lambda _: {"rate": 0.05, "rate_board": 0.02, "epochs": 2.0},
        learner=_transfer,
        arrays=None,
    ),
    "scratch": _baseline(
        "each board on its own, from the seeded start, one sample at a time, several times",
        ranges=lambda _: {"rate": RATE, "epochs": EPOCHS},
        first=lambda _: {"rate": 0.02, "epochs": 2.0},
        habits=_scratch,
        kind=Scratch,
    ),
}
"""In the order of tables."""

_OTHER_OPTIMIZER: Final = (f"{OURS}/plain-step", "tinyreptile/optimizer")
"""They say nothing new where the spec's server takes the plain step."""


def for_spec(spec: Spec) -> list[str]:
    """Names of the methods that differ from each other with this spec."""
    plain = spec.rounds.optimizer.rule == "step"
    return [name for name in METHODS if not (plain and name in _OTHER_OPTIMIZER)]
