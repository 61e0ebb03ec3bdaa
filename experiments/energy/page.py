"""The page, the pictures and the table of the experiment `energy`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from experiments.comparison.page import record
from experiments.energy.power import CHIPS, CLAIMED, ESP32, LINK, LINK_SOURCES, parts, saved, total
from experiments.energy.result import Stage
from experiments.harness.plots import Plot, Series
from experiments.harness.prose import Prose
from experiments.harness.report import Report, markdown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.comparison.result import MethodResult
    from experiments.energy.power import Chip, Link
    from experiments.energy.result import NetworkResult
    from experiments.harness.report import Row

PROSE: Final = Prose(Path(__file__).with_name("page.md"))


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How a board is connected between rounds."""

    name: str
    """In tables and results.json."""
    file: str
    """Part of the names of pictures."""
    words: str
    """In a sentence about boards."""
    link: Link


STAYS: Final = replace(LINK, connect=0.0)
"""A board that stays connected; what it takes to stay so is not counted."""
CONNECTIONS: Final = (
    Connection(name="each round", file="each-round", words="connecting in each round", link=LINK),
    Connection(
        name="stays connected", file="stays-connected", words="staying connected", link=STAYS
    ),
)
HEAD: Final = ("beside", "board", "connects", "bytes saved", "time saved", "energy saved")


@dataclass(frozen=True, kw_only=True)
class Savings:
    """Shares of another method's that TinyMetaFed does without; below 0 if it takes more."""

    bytes: float
    time: float
    energy: float

    def texts(self) -> list[str]:
        """As a line of a table."""
        return [f"{share:.0%}" for share in (self.bytes, self.time, self.energy)]

    def reached(self) -> list[str]:
        """Which of the claimed savings are there."""
        shares = {"bytes": self.bytes, "time": self.time, "energy": self.energy}
        return [what for what, share in shares.items() if share >= CLAIMED[what]]


def report(networks: Sequence[NetworkResult]) -> Report:
    """All that the experiment leaves in its folder."""
    methods = [(each.network, method) for each in networks for method in each.methods]
    return Report(
        "Energy, time and bytes, modelled",
        results={f"{network}/{each.method}": _record(each) for network, each in methods},
        tables={"modelled": [row for network, each in methods for row in _rows(network, each)]},
        plots=[plot for each in networks for plot in _plots(each)],
        summary=_summary(networks),
        findings="\n\n".join([PROSE.fill("introduction"), *map(_findings, networks)]),
        protocol=_protocol(networks),
    )


def _record(each: MethodResult) -> dict[str, Any]:
    """As in other experiments, and what is modelled: of a board over the whole run."""
    modelled = {}
    for chip in CHIPS:
        for how in CONNECTIONS:
            cost = Stage.end(each).cost(chip, how.link)
            modelled[f"{chip.name}, {how.name}"] = {
                "seconds": cost.seconds,
                "joules": cost.joules,
            }
    return record(each) | {"modelled": modelled}


def _rows(network: str, each: MethodResult) -> list[Row]:
    return [
        {
            "network": network,
            "method": each.method,
            "board": chip.name,
            "connecting": how.name,
            "rounds": point.rounds,
            "bytes": point.bytes,
            "operations": point.operations,
            each.scenario.metric: point.value.mean,
            "modelled_seconds": (
                cost := Stage(method=each, point=point).cost(chip, how.link)
            ).seconds,
            "modelled_joules": cost.joules,
        }
        for chip in CHIPS
        for how in CONNECTIONS
        for point in each.curve
    ]


def target(ours: MethodResult, other: MethodResult) -> float:
    """The worse of both last values, which both have reached."""
    ends = ours.end.value.mean, other.end.value.mean
    return max(ends) if ours.scenario.metric == "loss" else min(ends)


def savings(ours: Stage, other: Stage, chip: Chip, link: Link) -> Savings:
    """What TinyMetaFed does without."""
    mine, its = ours.cost(chip, link), other.cost(chip, link)
    return Savings(
        bytes=saved(ours.point.bytes, other.point.bytes),
        time=saved(mine.seconds, its.seconds),
        energy=saved(mine.joules, its.joules),
    )


def _summary(networks: Sequence[NetworkResult]) -> tuple[Sequence[str], list[list[str]]]:
    """What is saved at equal rounds; the claim first."""
    claimed = [f"{CLAIMED[what]:.0%}" for what in ("bytes", "time", "energy")]
    lines = [["*claimed*", "", "", *claimed]]
    for each in networks:
        ours, *others = each.methods
        for other in others:
            name = f"{each.network}: {other.method}"
            lines += [[name, *line] for line in _lines(Stage.end(ours), Stage.end(other))]
    return HEAD, lines


def _lines(ours: Stage, other: Stage) -> list[list[str]]:
    """Board, connection and savings."""
    return [
        [chip.name, how.name, *savings(ours, other, chip, how.link).texts()]
        for chip in CHIPS
        for how in CONNECTIONS
    ]


def _findings(found: NetworkResult) -> str:
    """What came of a network; all numbers from the runs and the model."""
    scenario = found.methods[0].scenario
    guess = ""
    if scenario.metric == "accuracy":
        guess = " " + PROSE.fill("guess", chance=f"{1 / scenario.spec.layers[-1].outputs:.3f}")
    return PROSE.fill(
        "network",
        network=found.network,
        ends=_ends(found),
        claimed=", ".join(f"{what} {share:.0%}" for what, share in CLAIMED.items()),
        reached=_reached(found),
        metric=scenario.metric,
        guess=guess,
        equal=_equal_value(found),
        shares=_shares(found),
        constants=_constants(found),
    )


def _ends(found: NetworkResult) -> str:
    """What each came to after all rounds."""
    scenario = found.methods[0].scenario
    joules = [f"J, {chip.name}, {how.name}" for chip in CHIPS for how in CONNECTIONS]
    head = ["method", scenario.metric, "rounds", "KB up and down a board", *joules]
    lines = []
    for each in found.methods:
        stage, cohort = Stage.end(each), scenario.spec.rounds.cohort
        costs = [stage.cost(chip, how.link) for chip in CHIPS for how in CONNECTIONS]
        lines.append(
            [
                each.method,
                each.end.value.text(),
                str(each.end.rounds),
                f"{each.end.bytes / cohort / 1000:.1f}",
                *(f"{cost.joules:.3g}" for cost in costs),
            ]
        )
    return markdown(head, lines)


def _reached(found: NetworkResult) -> str:
    """The claim beside each, in words."""
    ours, *others = found.methods
    sentences = []
    for other in others:
        for how in CONNECTIONS:
            boards = []
            for chip in CHIPS:
                some = savings(Stage.end(ours), Stage.end(other), chip, how.link).reached()
                boards.append(f"{', '.join(some) or 'none'} on {chip.name}")
            sentences.append(f"- beside {other.method}, {how.words}: {'; '.join(boards)}")
    return "\n".join(sentences)


def _equal_value(found: NetworkResult) -> str:
    """Savings where both first reached the worse of the two last values."""
    ours, *others = found.methods
    lines = []
    for other in others:
        goal = target(ours, other)
        mine, its = ours.first(goal), other.first(goal)
        if mine is None or its is None:  # Not a number: it diverged.
            lines.append([other.method, *["-"] * (len(HEAD) + 1)])
            continue
        rounds = f"{mine.rounds} to {its.rounds}"
        stages = Stage(method=ours, point=mine), Stage(method=other, point=its)
        lines += [[other.method, f"{goal:.3f}", rounds, *line] for line in _lines(*stages)]
    head = [HEAD[0], ours.scenario.metric, "rounds, ours to its", *HEAD[1:]]
    return markdown(head, lines)


def _shares(found: NetworkResult) -> str:
    """Where the energy goes."""
    lines = []
    for each in found.methods:
        for chip in CHIPS:
            made = parts(chip, LINK, Stage.end(each).work)
            whole = sum(part.joules for part in made.values())
            shares = [f"{part.joules / whole:.1%}" for part in made.values()]
            lines.append([each.method, chip.name, f"{1000 * whole:.1f}", *shares])
    return markdown(["method", "board", "mJ a round", "connecting", "radio", "computing"], lines)


def variations() -> dict[str, tuple[list[Chip], Link]]:
    """The model with one constant changed."""
    chips = list(CHIPS)

    def scaled(field: str, factor: float) -> list[Chip]:
        return [replace(chip, **{field: getattr(chip, field) * factor}) for chip in chips]

    return {
        "as stated": (chips, LINK),
        "connecting takes 0.2 s": (chips, replace(LINK, connect=0.2)),
        "connecting takes 3 s": (chips, replace(LINK, connect=3.0)),
        "stays connected": (chips, STAYS),
        "... at 1 Mbit/s": (chips, replace(STAYS, bits=1e6, preamble=192e-6)),
        "... sending takes twice the current": (scaled("tx", 2), STAYS),
        "... listening takes half the current": (scaled("rx", 0.5), STAYS),
        "... computing takes a tenth": (scaled("instructions", 0.1), STAYS),
        "... computing takes ten times as long": (scaled("instructions", 10), STAYS),
        "... computing takes twice the current": (scaled("cpu", 2), STAYS),
    }


def _constants(found: NetworkResult) -> str:
    """The saved energy under other constants, at equal rounds."""
    ours, *others = found.methods
    mine = Stage.end(ours).work
    lines = []
    for name, (chips, link) in variations().items():
        shares = [
            saved(total(chip, link, mine).joules, total(chip, link, Stage.end(other).work).joules)
            for other in others
            for chip in chips
        ]
        lines.append([name, *(f"{share:.0%}" for share in shares)])
    head = ["", *(f"{other.method}, {chip.name}" for other in others for chip in CHIPS)]
    return markdown(head, lines)


def _plots(found: NetworkResult) -> list[Plot]:
    """What is learned over modelled energy, and what is saved over the time to connect."""
    metric = found.methods[0].scenario.metric
    plots = [
        Plot(
            f"{found.network}-{how.file}",
            f"{found.network}: {metric} over energy, {how.words}",
            f"modelled joules of a board ({ESP32.name})",
            metric,
            [_over_energy(each, how.link) for each in found.methods],
            log_x=True,
            log_y=metric == "loss",
        )
        for how in CONNECTIONS
    ]
    return [*plots, _over_connecting(found)]


def _over_energy(each: MethodResult, link: Link) -> Series:
    stages = [Stage(method=each, point=point) for point in each.curve]
    joules = [stage.cost(ESP32, link).joules for stage in stages]
    return Series(each.method, joules, [point.value.mean for point in each.curve])


def _over_connecting(found: NetworkResult) -> Plot:
    ours, *others = found.methods
    seconds = [0.003 * 10 ** (step / 4) for step in range(13)]
    series = []
    for other in others:
        for chip in CHIPS:
            shares = [
                100
                * savings(
                    Stage.end(ours), Stage.end(other), chip, replace(LINK, connect=time)
                ).energy
                for time in seconds
            ]
            series.append(Series(f"{other.method}, {chip.name}", seconds, shares))
    return Plot(
        f"{found.network}-connecting",
        f"{found.network}: energy saved at equal rounds",
        "seconds to connect, each round",
        "modelled energy saved, %",
        series,
        log_x=True,
    )


def _protocol(networks: Sequence[NetworkResult]) -> str:
    """All constants with their sources, and how it was run."""
    text = [_runs(each) for each in networks]
    text.append(PROSE.fill("model"))
    text += [f"**{chip.name}**\n\n{_sources(chip.sources)}" for chip in CHIPS]
    text.append(f"**Both**\n\n{_sources(LINK_SOURCES)}")
    return "\n\n".join(text)


def _runs(found: NetworkResult) -> str:
    effort = found.effort
    settings = [
        f"{each.method}: {', '.join(f'{name} {value:g}' for name, value in each.settings.items())}."
        for each in found.methods
    ]
    return PROSE.fill(
        "runs",
        network=found.network,
        rounds=f"{effort.rounds:,}",
        cohort=str(found.methods[0].scenario.spec.rounds.cohort),
        seeds=str(len(found.methods[0].finals)),
        test_tasks=f"{effort.test_tasks:,}",
        search_runs=str(effort.search_runs),
        search_rounds=str(effort.search_rounds),
        settings=" ".join(settings),
    )


def _sources(sources: Sequence[tuple[str, str, str]]) -> str:
    return markdown(["what", "value", "source"], sources).replace("---:", "---")
