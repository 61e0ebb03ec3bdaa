"""What `tinymetafed tune` may change in a spec, and what a setting costs before it is tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from protocol.messages import Delta, Round, Update
from protocol.sparse import block_size, top_count
from protocol.spec.spec import Spec
from rounds.model import GlobalModel
from simulation.run import board_names
from simulation.traffic import Traffic
from tuning.errors import TuningError

if TYPE_CHECKING:
    from collections.abc import Collection

    from optuna.trial import Trial

Values = dict[str, float | int | str]
"""A setting of each name; ``local`` names the local layers by number, such as ``2,3``."""

RANGES: Final = {
    "percent": ("training", 1.0, 100.0),
    "percent_down": ("rounds", 1.0, 100.0),
    "rate_local": ("training", 0.001, 0.5),
    "rate_global": ("training", 0.001, 0.5),
    "step_max": ("rounds", 0.3, 10.0),
}
"""The table and the limits of what is searched by its logarithm."""
RULES: Final = ("step", "avgm", "adam")
"""Optimizers that are tried besides the given one."""
_STEPS: Final = {"step": (0.3, 10.0), "avgm": (0.03, 1.0)}
"""Limits of step_max: momentum adds up to ten times the step, ..."""
_ADAPTIVE: Final = (0.003, 0.3)
"""... and the others go about so far in each parameter, whatever they hear."""
NAMES: Final = (*RANGES, "support", "query", "local", "optimizer")
_LEAST_HALF: Final = 5
"""Neither support nor query gets less than this part of a round's samples."""


@dataclass(frozen=True)
class Space:
    """What is searched around a spec.

    Args:
        given: where the search starts; its values are within every range.
        fixed: names of what stays as it is.

    Raises:
        TuningError: a name is unknown, or nothing is left to search.
    """

    given: Spec
    fixed: Collection[str] = ()

    def __post_init__(self) -> None:
        for name in self.fixed:
            if name not in NAMES:
                raise TuningError(f"--fix {name}: there are {', '.join(NAMES)}")
        if not self.searched:
            raise TuningError("--fix leaves nothing to search: take a name away")

    @property
    def searched(self) -> list[str]:
        """Names of what is searched. Support and query are one: what one gets the other loses."""
        searched = (*RANGES, "support", "local", "optimizer")
        free = [name for name in searched if name not in self.fixed]
        if "step_max" in self.fixed:  # It has another meaning to each optimizer.
            free = [name for name in free if name != "optimizer"]
        if "query" in self.fixed or self.samples < 2 * _LEAST_HALF:
            free = [name for name in free if name != "support"]
        return [name for name in free if name != "local" or len(self.partitions()) > 1]

    @property
    def samples(self) -> int:
        """A board's in a round, support and query, in every run."""
        return self.given.training.support + self.given.training.query

    @property
    def query(self) -> int:
        """Query samples of a held-out task, in every run."""
        return max(1, min(self.samples // _LEAST_HALF, self.given.training.query))

    def partitions(self) -> list[str]:
        """The last layers are local, one or more but not all; or the given ones."""
        weighted = [i for i, layer in enumerate(self.given.layers) if layer.parameters]
        tails = [",".join(map(str, weighted[at:])) for at in range(1, len(weighted))]
        return list(dict.fromkeys([values_of(self.given)["local"], *tails]))  # type: ignore[list-item] # it is text

    def start(self) -> Values:
        """What is tried first: the given spec."""
        values = values_of(self.given)
        rule = str(values["optimizer"])
        return {_drawn_as(name, rule): values[name] for name in self.searched}

    def draw(self, trial: Trial) -> Values:
        """The next setting to try, with what is fixed; it may break a rule of a spec."""
        now = values_of(self.given)
        values = now.copy()
        if "optimizer" in self.searched:
            rules = list(dict.fromkeys([str(now["optimizer"]), *RULES]))
            values["optimizer"] = trial.suggest_categorical("optimizer", rules)
        rule = str(values["optimizer"])
        for name in self.searched:
            if name == "optimizer":
                continue
            if name == "local":
                values[name] = trial.suggest_categorical(name, self.partitions())
            elif name == "support":
                least, own = self.samples // _LEAST_HALF, self.given.training.support
                limits = min(least, own), max(self.samples - least, own)
                values[name] = trial.suggest_int(name, *limits)
            else:
                values[name] = self._number(trial, name, rule)
        values["query"] = self.samples - int(values["support"])
        return values

    def _number(self, trial: Trial, name: str, rule: str) -> float:
        """A rate, a share or a step of this optimizer's."""
        _, low, high = RANGES[name]
        now = values_of(self.given)
        own = float(now[name])
        if name == "step_max":
            low, high = _STEPS.get(rule, _ADAPTIVE)
            if rule != now["optimizer"]:  # The given step is another one's.
                own = low
        limits = min(low, own), max(high, own)
        drawn = trial.suggest_float(_drawn_as(name, rule), *limits, log=True)
        # Two digits are what a person would write; what was given stays as it is.
        return drawn if drawn == own else float(f"{drawn:.2g}")


def _drawn_as(name: str, rule: str) -> str:
    """What a setting is called in the search: steps of several optimizers are not compared."""
    return f"{name} of {rule}" if name == "step_max" else name


def values_of(spec: Spec) -> Values:
    """A spec's settings by name."""
    training, rounds = spec.training, spec.rounds
    local = [str(i) for i, layer in enumerate(spec.layers) if layer.parameters and layer.local]
    return {
        **{
            name: getattr({"training": training, "rounds": rounds}[table], name)
            for name, (table, _, _) in RANGES.items()
        },
        "support": training.support,
        "query": training.query,
        "local": ",".join(local),
        "optimizer": rounds.optimizer.rule,
    }


def applied(spec: Spec, values: Values) -> Spec:
    """The spec with other settings.

    Raises:
        ValidationError: they break a rule of a spec.
    """
    tables = spec.model_dump()
    for name, value in values.items():
        if name == "local":
            chosen = str(value).split(",")
            for number, layer in enumerate(tables["model"]["layers"]):
                if "local" in layer:
                    layer["local"] = str(number) in chosen
        elif name == "optimizer":
            if value != spec.rounds.optimizer.rule:  # Of another rule its settings are unknown.
                tables["rounds"]["optimizer"] = {"rule": value}
        else:
            table = RANGES[name][0] if name in RANGES else "training"
            tables[table][name] = value
    return Spec.model_validate(tables)


def bytes_most(spec: Spec) -> int:
    """The most bytes, up and down, of a board that takes part in each round of a whole run.

    Whole MQTT packets, by the counters of the simulation, with every block as large as it can be,
    and whatever the rates: as integers they are a byte or two shorter or longer.
    """
    spec = applied(spec, {"rate_local": 0.5, "rate_global": 0.5})
    invited = spec.rounds.invitations
    names = board_names(invited)
    traffic = Traffic(spec, names)
    for board in range(invited):
        traffic.connect(board)
    chunks = traffic.sizes(GlobalModel(spec).chunks())
    traffic.fetch(0, chunks)
    before = int(traffic.up[0] + traffic.down[0])
    u32, down = 2**32 - 1, top_count(spec.global_count, spec.rounds.percent_down)
    announcement = Round(
        lineage=u32,
        round=u32,
        version=u32,
        ticket_limit=invited,
        deadline=u32,
        chosen=b"",
        max_age=0,
        canary_version=0,
        canary_share=0,
    )
    traffic.announce(announcement.pack())
    block = bytes(block_size(spec.plan.top, spec.tensors, spec.plan.value_bits))
    update = Update(
        lineage=u32,
        round=u32,
        board=names[0],
        nonce=u32,
        support=2047,
        query=2047,
        support_loss=u32,
        query_loss=u32,
        query_correct=u32,
        bytes_up=u32,
        bytes_down=u32,
        milliseconds=u32,
        heap_free=u32,
        changes=block,
    )
    traffic.update(0, update.pack())
    for name in names:  # At worst each is told of in a receipt of its own.
        traffic.receipts(u32, [name])
    changes = bytes(block_size(down, spec.tensors, 8))
    delta = Delta(lineage=u32, version=u32, checksum=u32, changes=changes)
    traffic.model(delta.pack())
    return before + spec.rounds.count * (int(traffic.up[0] + traffic.down[0]) - before)
