"""The claims made for TinyMetaFed, beside what the experiments found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from experiments.energy.power import CLAIMED, saved
from experiments.methods.catalogue import METHODS
from simulation.statistics import Estimate

Results = Mapping[str, Any]
"""What one experiment's results.json holds."""
NETWORKS: Final = ("sine", "omniglot", "keywords")
OURS, TINY = "tinymetafed", "tinyreptile"
PARTS: Final = {
    "tinymetafed/no-reconstruction": "partial local reconstruction helps",
    "tinymetafed/no-top-p": "Top-P saves bytes at little cost",
    "tinymetafed/no-annealing": "the annealed step helps",
    "tinymetafed/no-online": "online learning saves computation",
}
"""What each part is there for, by the method without it."""
SAVING: Final = frozenset({"tinymetafed/no-top-p", "tinymetafed/no-online"})
"""Without the parts that save something: with them it is enough to be as good."""
BASELINES: Final = [name for name in METHODS if name != OURS and not name.startswith(f"{OURS}/")]


class Claim(NamedTuple):
    """One claim, on one network."""

    claim: str
    found: str
    verdict: str


@dataclass(frozen=True, kw_only=True)
class MethodResult:
    """A method, as an experiment found it."""

    metric: str
    """``loss`` or ``accuracy``."""
    value: Estimate
    bytes: float
    """Up and down."""
    operations: float
    rounds: int
    curve: Sequence[tuple[int, float, float]]
    """Rounds, bytes and values."""

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> MethodResult:
        """Of results.json."""
        metric = "loss" if "loss" in entry else "accuracy"
        return cls(
            metric=metric,
            value=Estimate(**entry[metric]),
            bytes=float(entry["bytes_up"] + entry["bytes_down"]),
            operations=entry["operations"],
            rounds=entry["rounds"],
            curve=[(rounds, sent, value) for rounds, sent, value in entry["curve"]],
        )

    def text(self) -> str:
        """The value with its interval."""
        if self.metric == "loss":
            return self.value.text()
        return f"{100 * self.value.mean:.1f} % ± {100 * self.value.ci95:.1f}"


def better(one: MethodResult, other: MethodResult) -> float:
    """Above 0 where one is better than the other by more than both intervals, below 0 if worse."""
    sign = -1 if one.metric == "loss" else 1
    gap = sign * (one.value.mean - other.value.mean)
    return 0.0 if abs(gap) <= one.value.ci95 + other.value.ci95 else gap


def claims(found: Mapping[str, Results]) -> list[Claim]:
    """Each claim with what was found and whether it held; only of what was run.

    Args:
        found: each experiment's results.json, by the experiment's name.
    """
    methods = {
        network: {name: MethodResult.read(entry) for name, entry in found[network].items()}
        for network in NETWORKS
        if network in found
    }
    beside = [_beside_tinyreptile(network, results) for network, results in methods.items()]
    beside += [_beside_all(network, results) for network, results in methods.items()]
    return [
        *beside,
        *_parts(methods),
        *_observer(found.get("top-p", {})),
        *_savings(found.get("energy", {})),
    ]


def _beside_tinyreptile(network: str, results: Mapping[str, MethodResult]) -> Claim:
    ours, theirs = results[OURS], results[TINY]
    is_loss, end = ours.metric == "loss", theirs.value.mean
    reached = next(
        ((r, b) for r, b, value in ours.curve if (value <= end if is_loss else value >= end)), None
    )
    text = (
        f"{network}: {ours.text()} against TinyReptile's {theirs.text()} after "
        f"{ours.rounds} rounds, with {ours.bytes / theirs.bytes:.1%} of its bytes; "
    )
    text += (
        f"its end is reached in round {reached[0]}, with "
        f"{reached[1] / theirs.bytes:.1%} of its bytes"
        if reached
        else "its end is not reached"
    )
    held = better(ours, theirs) >= 0 and reached is not None
    return Claim(
        claim="fewer bytes, and faster convergence",
        found=text,
        verdict="held" if held else "did not hold",
    )


def _beside_all(network: str, results: Mapping[str, MethodResult]) -> Claim:
    ours = results[OURS]
    baselines = [name for name in results if name in BASELINES]
    above = [name for name in baselines if better(results[name], ours) > 0]
    even = [name for name in baselines if not better(results[name], ours)]
    text = f"{network}: of {len(baselines)} baselines "
    if above:
        names = ", ".join(f"{name} ({results[name].text()})" for name in above)
        text += f"{names} {'is' if len(above) == 1 else 'are'} better"
    else:
        text += "none is better by more than the intervals"
    if even:
        text += f"; not distinguishable: {', '.join(even)}"
    verdict = "did not hold" if above else "held in part" if even else "held"
    return Claim(claim="better than the baselines", found=text, verdict=verdict)


def _parts(methods: Mapping[str, Mapping[str, MethodResult]]) -> Iterator[Claim]:
    for method, claim in PARTS.items():
        for network, results in methods.items():
            if method not in results:
                continue
            ours, without = results[OURS], results[method]
            gain = better(ours, without)
            text = (
                f"{network}: {ours.text()} with it, {without.text()} without; with it "
                f"{ours.bytes / without.bytes:.0%} of the bytes and "
                f"{ours.operations / without.operations:.0%} of the operations"
            )
            held = gain >= 0 if method in SAVING else gain > 0
            verdict = "held" if held else "did not hold" if gain else "not distinguishable"
            yield Claim(claim=claim, found=text, verdict=verdict)


def _observer(results: Results) -> Iterator[Claim]:
    for network, secret, blind in (("sine", "task", 0.0), ("omniglot", "character", 0.5)):
        entries = [
            each
            for each in results.get("observer", ())
            if (each["network"], each["secret"]) == (network, secret)
            and (each["value_bits"], each["local_known"]) == (8, False)
        ]
        if not entries:
            continue
        last = max(each["rounds"] for each in entries)
        values = {
            (each["partition"], each["percent"]): each["value"]["mean"]
            for each in entries
            if each["rounds"] == last
        }
        full, ours = values["full", 100], values["partial", 10]
        text = (
            f"{network}: what our attack infers ({blind:g} is nothing, 1 is all) goes from "
            f"{full:.2f} with everything sent to {ours:.2f} with reconstruction and P = 10"
        )
        kept = (ours - blind) / (full - blind) if full > blind else 1.0
        verdict = "held" if kept < 0.5 else "held in part" if kept < 0.9 else "did not hold"
        yield Claim(claim="protects privacy", found=text, verdict=verdict)


def _savings(results: Results) -> Iterator[Claim]:
    claim = ", ".join(f"{share:.0%} less {what}" for what, share in CLAIMED.items())
    for network in NETWORKS:
        ours, theirs = results.get(f"{network}/{OURS}"), results.get(f"{network}/{TINY}")
        if ours is None or theirs is None:
            continue
        saved_bytes = saved(MethodResult.read(ours).bytes, MethodResult.read(theirs).bytes)
        parts, reached = [], []
        for how, mine in ours["modelled"].items():
            its = theirs["modelled"][how]
            shares = {
                "time": saved(mine["seconds"], its["seconds"]),
                "bytes": saved_bytes,
                "energy": saved(mine["joules"], its["joules"]),
            }
            parts.append(f"{how}: {', '.join(f'{what} {s:.0%}' for what, s in shares.items())}")
            reached += [shares[what] >= CLAIMED[what] for what in CLAIMED]
        verdict = "held" if all(reached) else "held in part" if any(reached) else "did not hold"
        text = f"{network}, beside TinyReptile at equal rounds, modelled; {'; '.join(parts)}"
        yield Claim(claim=claim, found=text, verdict=verdict)
