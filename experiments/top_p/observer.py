"""What an observer learns at each P: :mod:`experiments.top_p.attack`, made and summed up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from experiments.harness.plots import Plot, Series
from experiments.harness.report import Row
from experiments.harness.scenario import Scenario
from experiments.top_p.attack import NEAREST, Attack, attack
from simulation.statistics import Estimate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from experiments.harness.request import Request
    from experiments.harness.study import Study

PERCENTS: Final = {
    "sine": (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0),
    "omniglot": (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0),
}
BITS: Final = (4, 8, 16)
ROUNDS: Final = {"sine": 100, "omniglot": 50}
"""After which boards are attacked, beside those of the first round; half of a run."""
QUICK_ROUNDS: Final = {"sine": 10, "omniglot": 4}
BOARDS: Final = {"sine": 400, "omniglot": 200}
OWN: Final = 4000
SEEDS_MOST: Final = 3
PARTITIONS: Final[tuple[tuple[str, tuple[int, ...] | None, float], ...]] = (
    ("partial", None, 1.0),
    ("full", (), 1 / 3),
)
"""Name, local layers, factor of the server's step: with nothing local the whole one is too far."""
WHAT: Final = {
    "task": "share of the sine that is told",
    "drawing": "AUC, this drawing or another one of the character",
    "character": "AUC, this character or another board's",
    "drawing told": "the same drawing, observer told the local layers",
    "character told": "the same character, observer told the local layers",
}


@dataclass(frozen=True)
class Seen:
    """For the page."""

    results: Mapping[str, Any]
    rows: list[Row]
    plots: list[Plot]
    findings: str
    protocol: str


def observe(request: Request, study: Study, seeds: Mapping[str, int]) -> Seen:
    """Attack sine's boards, and those of characters where there are any."""
    jobs: dict[str, list[Attack]] = {}
    for network in ("sine", *request.data):
        rounds = (QUICK_ROUNDS if request.quick else ROUNDS)[network]
        base = Attack(
            Scenario(network, 2 * rounds, request.data.get(network)),
            *(None, 0, 50 if request.quick else BOARDS[network], 500 if request.quick else OWN),
            *(PERCENTS[network], BITS),
        )
        for name, local, step in PARTITIONS:
            for when in (0, rounds):
                one = replace(base, local=local, step=step, rounds=when)
                count = min(seeds[network], SEEDS_MOST)
                place = f"{network}/{name}/round {when}"
                jobs[place] = [replace(one, seed=seed) for seed in range(count)]
    outcomes = iter(study.run(attack, [job for some in jobs.values() for job in some], "observer"))
    found: dict[tuple[str, str], Estimate] = {}
    results: dict[str, Any] = {}
    for place, some in jobs.items():
        runs = [next(outcomes) for _ in some]
        for key, figures in runs[0].items():
            percent, bits = key.split("/")
            name = f"observer/{place}/P={percent}/int{bits}"
            results[name] = {}
            for what in figures:
                value = Estimate.of([run[key][what] for run in runs])
                found[name, what] = value
                results[name][what] = {"mean": value.mean, "ci95": value.ci95}
    rows: list[Row] = [
        {"setting": name, "what": what, "value": value.mean, "ci95": value.ci95}
        for (name, what), value in found.items()
    ]
    plots = _plots(jobs, found)
    return Seen(results, rows, plots, _findings(jobs, found), _protocol(jobs))


def _plots(
    jobs: Mapping[str, Sequence[Attack]], found: Mapping[tuple[str, str], Estimate]
) -> list[Plot]:
    plots = []
    for network, what in (("sine", "task"), ("omniglot", "character"), ("omniglot", "drawing")):
        series = []
        for place in jobs:
            if not place.startswith(network):
                continue
            percents = PERCENTS[network]
            values = [found[f"observer/{place}/P={p:g}/int8", what] for p in percents]
            means, widths = [each.mean for each in values], [each.ci95 for each in values]
            series.append(Series(place.removeprefix(f"{network}/"), percents, means, widths))
        if series:
            title = f"{network}: what an observer learns, by P"
            axis = ("P, % of shared parameters", WHAT[what])
            plots.append(Plot(f"observer-{what}", title, *axis, series, log_x=True))
    return plots


_INTRODUCTION: Final = (
    "**What an observer learns** from one board's update, with 8-bit values. The share of a "
    "sine is 0 for who only knows how sines are drawn and 1 for who knows it all; an AUC is "
    "0.5 for a guess. `full` shares all layers, `partial` is the spec's partition.\n"
)


def _findings(
    jobs: Mapping[str, Sequence[Attack]], found: Mapping[tuple[str, str], Estimate]
) -> str:
    lines = [_INTRODUCTION]
    for network in ("sine", "omniglot"):
        places = [place for place in jobs if place.startswith(network)]
        for what in WHAT:
            for place in places:
                name = f"observer/{place}/P="
                if (f"{name}100/int8", what) not in found:
                    continue
                at = [f"P = {p}: {found[f'{name}{p}/int8', what].text()}" for p in (1, 10, 100)]
                lines.append(f"- {place}, {WHAT[what]}: {'; '.join(at)}")
    spread = max(
        abs(value.mean - found[name.replace("/int4", "/int8"), what].mean)
        for (name, what), value in found.items()
        if name.endswith("/int4")
    )
    lines.append(
        f"\nOf all these figures, the most that 4-bit values make a difference from 8-bit ones is "
        f"{spread:.3f}."
    )
    for network in ("sine", "omniglot"):
        last = [place for place in jobs if place.startswith(network)][1::2]
        if len(last) == 2:
            what = "task" if network == "sine" else "character"
            partial, full = (f"observer/{place}/P=" for place in last)
            lines.append(
                f"\nIn the middle of a run of {network}, going from full transmission at P = 100 "
                f"to the spec's partition takes the figure ({WHAT[what]}) from "
                f"{found[f'{full}100/int8', what].text()} to "
                f"{found[f'{partial}100/int8', what].text()}, and P = 10 from there to "
                f"{found[f'{partial}10/int8', what].text()}; full transmission with P = 10 would "
                f"be at {found[f'{full}10/int8', what].text()}."
            )
    lines.append(
        "\nThese are the least that leaks: a better attack may exist, and an observer who sees "
        "several updates of one board learns more. Nothing here is a guarantee of privacy."
    )
    return "\n".join(lines)


def _protocol(jobs: Mapping[str, Sequence[Attack]]) -> str:
    job = next(iter(jobs.values()))[0]
    text = (
        f"**Observer.** It sees what the aggregator and the broker see: the spec with its seeds, "
        f"the published version, and one board's decoded update; not its samples, nor its local "
        f"layers after reconstruction, but their seeded start. {job.boards} boards are attacked on "
        f"sines for each seed ({len(next(iter(jobs.values())))}), each with a sine never seen "
        f"before. There the observer plays {job.own:,} boards of its own from the same version, "
        f"and takes the mean sine of the {NEAREST} whose changes lie next to the update, over the "
        f"entries that were sent; what is told is 1 minus its squared error over that of a guess "
        f"without an update, for the parts of sin x and cos x."
    )
    if any(place.startswith("omniglot") for place in jobs):
        count = next(some[0].boards for place, some in jobs.items() if place.startswith("omniglot"))
        text += (
            f" On characters ({count} boards a seed) it is given a drawing, and asked whether the "
            "board updated from it: by the cosine of the update and the negative gradient of the "
            "drawing's loss at the published version and the seeded start, under the label that "
            "suits best. The other drawing is of the same character, or from another board. "
            "`told`: it is given the board's reconstructed local layers."
        )
    return text + (
        " Boards are those of the first round, or learn from the version in the middle of a run; "
        "with nothing local the server's step is a third of the spec's."
    )
