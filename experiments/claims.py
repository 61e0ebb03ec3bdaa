"""The claims made for TinyMetaFed, beside what the experiments found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from experiments.energy.power import CLAIMED, saved

Results = Mapping[str, dict[str, Any]]
"""What one experiment's results.json holds."""
NETWORKS: Final = ("sine", "omniglot", "keywords")
OURS, TINY = "tinymetafed", "tinyreptile"


def metric(result: Mapping[str, Any]) -> str:
    """What it is judged by."""
    return "loss" if "loss" in result else "accuracy"


def value(result: Mapping[str, Any]) -> str:
    """With its interval."""
    name = metric(result)
    mean, width = result[name]["mean"], result[name]["ci95"]
    return (
        f"{mean:.3f} ± {width:.3f}" if name == "loss" else f"{100 * mean:.1f} % ± {100 * width:.1f}"
    )


def better(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Above 0 where one is better than the other by more than both intervals, below 0 if worse."""
    name = metric(one)
    sign = -1 if name == "loss" else 1
    gap = sign * (one[name]["mean"] - other[name]["mean"])
    doubt = one[name]["ci95"] + other[name]["ci95"]
    return 0.0 if abs(gap) <= doubt else gap


def bytes_of(result: Mapping[str, Any]) -> float:
    """Up and down."""
    return float(result["bytes_up"] + result["bytes_down"])


def claims(found: Mapping[str, Results]) -> list[tuple[str, str, str]]:
    """Claim, what was found, and whether it held; only of what was made."""
    return [
        *_beside_tinyreptile(found),
        *_beside_all(found),
        *_parts(found),
        *_observer(found),
        *_savings(found),
    ]


def _beside_tinyreptile(found: Mapping[str, Results]) -> Iterator[tuple[str, str, str]]:
    for network in NETWORKS:
        if network not in found:
            continue
        results = found[network]
        ours, theirs = results[OURS], results[TINY]
        is_loss = metric(ours) == "loss"
        end = theirs[metric(theirs)]["mean"]
        reached = next(
            ((r, b) for r, b, v in ours["curve"] if (v <= end if is_loss else v >= end)), None
        )
        text = (
            f"{network}: {value(ours)} against TinyReptile's {value(theirs)} after "
            f"{ours['rounds']} rounds, with {bytes_of(ours) / bytes_of(theirs):.1%} of its bytes; "
        )
        text += (
            f"its end is reached in round {reached[0]}, with "
            f"{reached[1] / bytes_of(theirs):.1%} of its bytes"
            if reached
            else "its end is not reached"
        )
        held = better(ours, theirs) >= 0 and reached is not None
        yield (
            "fewer bytes, and faster convergence",
            text,
            "held" if held else "did not hold",
        )


def _beside_all(found: Mapping[str, Results]) -> Iterator[tuple[str, str, str]]:
    for network in NETWORKS:
        if network not in found:
            continue
        results = found[network]
        ours = results[OURS]
        rivals = [
            name for name in results if name != OURS and not name.startswith(f"{OURS}/")
            and not any(name.endswith(end) for end in ("-shot", "-rounds"))
        ]  # fmt: skip
        above = [name for name in rivals if better(results[name], ours) > 0]
        even = [name for name in rivals if not better(results[name], ours)]
        text = f"{network}: of {len(rivals)} rivals "
        text += (
            "none is better by more than the intervals"
            if not above
            else f"{', '.join(f'{name} ({value(results[name])})' for name in above)} "
            f"{'is' if len(above) == 1 else 'are'} better"
        )
        if even:
            text += f"; not to be told apart: {', '.join(even)}"
        verdict = "did not hold" if above else "held in part" if even else "held"
        yield "better than the rivals", text, verdict


_PARTS: Final = {
    "no-reconstruction": "partial local reconstruction helps",
    "no-top-p": "Top-P saves bytes at little cost",
    "no-annealing": "the annealed step helps",
    "no-online": "online learning saves computation",
}


def _parts(found: Mapping[str, Results]) -> Iterator[tuple[str, str, str]]:
    for part, claim in _PARTS.items():
        for network in NETWORKS:
            if f"{OURS}/{part}" not in found.get(network, {}):
                continue
            ours, without = found[network][OURS], found[network][f"{OURS}/{part}"]
            told = better(ours, without)
            text = (
                f"{network}: {value(ours)} with it, {value(without)} without; with it "
                f"{bytes_of(ours) / bytes_of(without):.0%} of the bytes and "
                f"{ours['operations'] / without['operations']:.0%} of the operations"
            )
            saves = part in {"no-top-p", "no-online"}
            held = told >= 0 if saves else told > 0
            yield claim, text, "held" if held else "not told apart" if not told else "did not hold"


def _observer(found: Mapping[str, Results]) -> Iterator[tuple[str, str, str]]:
    results = found.get("top-p", {})
    for network, what, blind in (("sine", "task", 0.0), ("omniglot", "character", 0.5)):
        names = [name for name in results if name.startswith(f"observer/{network}/partial/round ")]
        if not names:
            continue
        last = max(int(name.split("/")[3].removeprefix("round ")) for name in names)
        at = f"round {last}"
        full = results[f"observer/{network}/full/{at}/P=100/int8"][what]["mean"]
        ours = results[f"observer/{network}/partial/{at}/P=10/int8"][what]["mean"]
        text = (
            f"{network}: what our attack tells ({blind:g} is nothing, 1 is all) goes from "
            f"{full:.2f} with everything sent to {ours:.2f} with reconstruction and P = 10"
        )
        kept = (ours - blind) / (full - blind) if full > blind else 1.0
        verdict = "held" if kept < 0.5 else "held in part" if kept < 0.9 else "did not hold"
        yield "protects privacy", text, verdict


def _savings(found: Mapping[str, Results]) -> Iterator[tuple[str, str, str]]:
    results = found.get("energy", {})
    claim = ", ".join(f"{share:.0%} less {what}" for what, share in CLAIMED.items())
    for network in NETWORKS:
        if f"{network}/{OURS}" not in results:
            continue
        ours, theirs = results[f"{network}/{OURS}"], results[f"{network}/{TINY}"]
        parts, reached = [], []
        for how, mine in ours["modelled"].items():
            its = theirs["modelled"][how]
            shares = {
                "time": saved(mine["seconds"], its["seconds"]),
                "bytes": saved(bytes_of(ours), bytes_of(theirs)),
                "energy": saved(mine["joules"], its["joules"]),
            }
            parts.append(f"{how}: {', '.join(f'{what} {s:.0%}' for what, s in shares.items())}")
            reached += [shares[what] >= CLAIMED[what] for what in CLAIMED]
        verdict = "held" if all(reached) else "held in part" if any(reached) else "did not hold"
        text = f"{network}, beside TinyReptile at equal rounds, modelled; {'; '.join(parts)}"
        yield claim, text, verdict
