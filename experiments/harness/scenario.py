"""What is learned in an experiment: a network, its tasks, and how a model is evaluated."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from protocol.spec.spec import Spec
from runtime.shipped import shipped
from simulation.tasks.held_out import character_tasks, sine_tasks, speaker_tasks

if TYPE_CHECKING:
    from simulation.exam import Evaluation
    from simulation.tasks.characters import CharacterTasks
    from simulation.tasks.sines import SineTasks
    from simulation.tasks.speakers import SpeakerTasks

    Samples = SineTasks | CharacterTasks | SpeakerTasks


@dataclass(frozen=True)
class Scenario:
    """A shipped spec's network and tasks, for some rounds."""

    network: str
    """The spec's name."""
    rounds: int
    data: Path | None = None
    """None for sines."""
    shots: int | None = None
    """Support samples of each class; None for the spec's support."""
    choosing: bool = False
    """Whether the held-out tasks are those by which settings are chosen."""
    digest: str = field(init=False)
    """Of the spec, which decides a run as well."""

    def __post_init__(self) -> None:
        said = _shipped(self.network).model_dump_json().encode()
        object.__setattr__(self, "digest", blake2b(said, digest_size=8).hexdigest())

    @property
    def spec(self) -> Spec:
        """The shipped one, with these rounds and shots."""
        spec = _shipped(self.network)
        rounds = spec.rounds.model_copy(update={"count": self.rounds})
        training = spec.training
        if self.shots is not None:
            support = self.shots * spec.layers[-1].outputs
            training = training.model_copy(update={"support": support})
        return spec.model_copy(update={"rounds": rounds, "training": training})

    @property
    def metric(self) -> Literal["loss", "accuracy"]:
        """What a model is evaluated by: the mean squared error, or the accuracy of classes."""
        return "loss" if self.network == "sine" else "accuracy"

    def value(self, measured: Evaluation) -> float:
        """Mean over the held-out tasks."""
        return float((measured.loss if self.metric == "loss" else measured.accuracy).mean())

    def tasks(self) -> tuple[Samples, Samples]:
        """To learn from, and held out."""
        return _tasks(self.network, self.data, self.shots, choosing=self.choosing)


@cache
def _shipped(network: str) -> Spec:
    return Spec.from_file(shipped("specs") / f"{network}.toml")


@cache
def _tasks(
    network: str, data: Path | None, shots: int | None, *, choosing: bool
) -> tuple[Samples, Samples]:
    """Read once in a process: features take a while."""
    spec = Scenario(network, 1, data, shots).spec
    if data is None:
        return sine_tasks(spec)
    make = speaker_tasks if network == "keywords" else character_tasks
    return make(spec, data, choosing=choosing)
