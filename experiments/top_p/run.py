"""How much a board should send: P, how it chooses, feedback, widths, and who learns from it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from experiments.harness.plots import Plot, Series
from experiments.harness.report import Report, Row
from experiments.harness.scenario import Scenario
from experiments.methods.settings import Setting, compare, difference, tune
from experiments.top_p import observer
from simulation.statistics import Estimate

if TYPE_CHECKING:
    from pathlib import Path

    from experiments.harness.request import Request
    from experiments.harness.study import Study
    from experiments.methods.selections import Rival
    from experiments.methods.settings import Results

ROUNDS: Final = {"sine": 200, "omniglot": 60}
QUICK_ROUNDS: Final = {"sine": 40, "omniglot": 10}
TASKS: Final = {"sine": 1000, "omniglot": 300}
SEEDS_MOST: Final = {"sine": 100, "omniglot": 3}
PERCENTS: Final = (1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
FEW_PERCENTS: Final = {"omniglot": (2, 10, 100), "quick": (1, 10, 100)}
COMPARED: Final = {"sine": (2, 10), "omniglot": (10,), "quick": (10,)}
"""P at which the rivals are played."""
RIVALS: Final[tuple[Rival, ...]] = ("random", "threshold", "periodic")
POINTS: Final = {"sine": 15, "omniglot": 8}
QUICK_POINTS: Final = 4
QUICK_TASKS: Final = 60
STEPS: Final = (1 / 3, 1.0, 3.0, 10.0)
"""Factors of the server's step: on sines each setting is given its best."""
TARGET: Final = 0.1
"""The target is what P = 100 ends at, with this much more loss, or less accuracy."""
FEEDBACK: Final = "feedback"
COSTS: Final = (
    *("bytes_up", "bytes_down", "operations", "rounds"),
    *("rounds_to_target", "bytes_to_target", "seeds_at_target"),
)
"""Columns."""


def make(request: Request, study: Study) -> Report:
    """Play all settings on sines, and some on characters where there are any."""
    report = Report("How much to send")
    findings, protocol, lines = [], [], []
    for network in ("sine", *request.data):
        settings = _settings(network, request)
        rounds, seeds = settings["P=100"].scenario.rounds, _seeds(network, request)
        if network == "sine":
            steps = STEPS[:2] if request.quick else STEPS
            settings = tune(study, settings, [(1.0, step) for step in steps], rounds // 2)
        results = compare(study, settings, seeds, network)
        target, reached = _targets(results)
        prefix = "" if network == "sine" else f"{network}/"
        for name, result in results.items():
            report.results[prefix + name] = result | reached[name]
        report.tables[network] = [_row(name, report.results[prefix + name]) for name in results]
        report.plots += _plots(network, results)
        lines += [_line(network, name, report.results[prefix + name]) for name in results]
        findings.append(_findings(network, results, reached, target))
        protocol.append(_protocol(network, settings, seeds, target))
    seen = observer.observe(request, study, {name: _seeds(name, request) for name in TASKS})
    report.results |= seen.results
    report.tables["observer"] = seen.rows
    report.plots += seen.plots
    report.summary = (
        ("setting", "loss or accuracy", "KB up", "KB down", "rounds to target", "KB to target"),
        lines,
    )
    report.findings = "\n\n".join([*findings, seen.findings])
    report.protocol = "\n\n".join([*protocol, _RIVALS, seen.protocol])
    return report


def _seeds(network: str, request: Request) -> int:
    if request.quick and network != "sine":
        return 1
    return min(request.seeds, SEEDS_MOST[network])


def _settings(network: str, request: Request) -> dict[str, Setting]:
    """By name, as in results.json."""
    data: Path | None = request.data.get(network)
    rounds = (QUICK_ROUNDS if request.quick else ROUNDS)[network]
    base = Setting(Scenario(network, rounds, data), TASKS[network], POINTS[network])
    if request.quick:
        base = replace(base, tasks=QUICK_TASKS, points=QUICK_POINTS)
    which = "quick" if request.quick else network
    percents = FEW_PERCENTS.get(which, PERCENTS)
    settings = {f"P={percent}": replace(base, percent=float(percent)) for percent in percents}
    for percent in COMPARED[which]:
        at = replace(base, percent=float(percent))
        kept = replace(at, feedback=True)
        settings[f"{FEEDBACK}/P={percent}"] = kept
        for rival in RIVALS:
            settings[f"{rival}/P={percent}"] = replace(at, rival=rival)
            if network == "sine":  # Characters take longer.
                settings[f"{rival}+{FEEDBACK}/P={percent}"] = replace(kept, rival=rival)
    if network == "sine":
        settings["P=100/down=100"] = replace(settings["P=100"], percent_down=100.0)
        for bits in (4, 16):
            settings[f"int{bits}/P=10"] = replace(base, percent=10.0, bits=bits)
            kept = replace(base, percent=10.0, bits=bits, feedback=True)
            settings[f"int{bits}+{FEEDBACK}/P=10"] = kept
    return settings


def _metric(results: Results) -> str:
    return "loss" if "loss" in results["P=100"] else "accuracy"


def _estimate(result: dict[str, Any]) -> Estimate:
    return Estimate(**result["loss" if "loss" in result else "accuracy"])


def _targets(results: Results) -> tuple[float, dict[str, dict[str, Any]]]:
    """The target, and for each setting the means over the seeds that reach it, and how many do."""
    is_loss = _metric(results) == "loss"
    target = _estimate(results["P=100"]).mean * (1 + TARGET if is_loss else 1 - TARGET)
    reached = {}
    for name, result in results.items():
        firsts = [
            next(
                (point for point in curve if (point[2] <= target) == is_loss or point[2] == target),
                None,
            )
            for curve in result["curves"]
        ]
        came = [first for first in firsts if first is not None]
        means = [sum(each) / len(came) for each in zip(*came, strict=True)] if came else [None] * 3
        reached[name] = {
            "rounds_to_target": means[0],
            "bytes_to_target": means[1],
            "seeds_at_target": len(came),
        }
    return target, reached


def _row(name: str, result: dict[str, Any]) -> Row:
    value = _estimate(result)
    costs = {key: "" if result[key] is None else round(result[key]) for key in COSTS}
    return {"setting": name, "value": value.mean, "ci95": value.ci95, **costs}


def _line(network: str, name: str, result: dict[str, Any]) -> list[str]:
    rounds, sent = result["rounds_to_target"], result["bytes_to_target"]
    some = f" ({result['seeds_at_target']} of {len(result['finals'])})"
    some = "" if result["seeds_at_target"] == len(result["finals"]) else some
    return [
        f"{network} {name}",
        _estimate(result).text(),
        f"{result['bytes_up'] / 1e3:,.0f}",
        f"{result['bytes_down'] / 1e3:,.0f}",
        "never" if rounds is None else f"{rounds:.0f}{some}",
        "never" if sent is None else f"{sent / 1e3:,.0f}",
    ]


def _plots(network: str, results: Results) -> list[Plot]:
    metric = _metric(results)
    by_way: dict[str, list[tuple[float, float, float, float]]] = {}
    for name, result in results.items():
        if name.endswith("down=100"):
            continue
        way, _, percent = name.rpartition("P=")
        value = _estimate(result)
        sent = (result["bytes_up"] + result["bytes_down"]) / 1e3
        point = (float(percent), value.mean, value.ci95, sent)
        by_way.setdefault(way.removesuffix("/") or "Top-P", []).append(point)
    ways = {way: each for way, each in by_way.items() if not way.startswith(("int", "periodic"))}
    by_percent = [
        Series(way, *([point[at] for point in points] for at in (0, 1, 2)))
        for way, points in ways.items()
    ]
    by_bytes = [
        Series(way, [point[3] for point in points], [point[1] for point in points])
        for way, points in by_way.items()
        if way == "threshold" or way.startswith(("Top-P", "int", FEEDBACK))
    ]
    is_loss = metric == "loss"
    label = f"held-out {metric}"
    return [
        Plot(
            *(f"top-p-{network}", f"{network}: {metric} by P", "P, % of shared parameters", label),
            by_percent,
            log_x=True,
            log_y=is_loss,
        ),
        Plot(
            *(f"top-p-bytes-{network}", f"{network}: {metric} by bytes of a run"),
            *("KB up and down, whole fleet", label),
            by_bytes,
            log_x=True,
            log_y=is_loss,
        ),
    ]


def _findings(
    network: str, results: Results, reached: dict[str, dict[str, Any]], target: float
) -> str:
    metric = _metric(results)
    sign = 1 if metric == "loss" else -1
    tops = [name for name in results if name.startswith("P=") and "down" not in name]
    best = min(tops, key=lambda name: sign * _estimate(results[name]).mean)
    full = results["P=100"]
    alike = [name for name in tops if name != "P=100" and _as_good(results, name, sign)]
    ends, top = _estimate(full).text(), _estimate(results[best]).text()
    parts = [
        f"**{network}.** P = 100 ends at {metric} {ends}; {best} is the best of Top-P, at {top}."
    ]
    if alike:
        least = alike[0]
        share = results[least]["bytes_up"] / full["bytes_up"]
        parts.append(
            f"The smallest P that these seeds do not tell to be worse than 100 is {least[2:]}, "
            f"with {share:.0%} of its bytes up."
        )
    else:
        parts.append("Every smaller P is worse than 100 by more than the seeds' spread.")
    first = [name for name in tops if reached[name]["bytes_to_target"] is not None]
    if first:
        cheap = min(first, key=lambda name: reached[name]["bytes_to_target"])
        share = reached[cheap]["bytes_to_target"] / reached["P=100"]["bytes_to_target"]
        parts.append(
            f"{cheap} reaches the target, {target:.3f}, with the fewest bytes both ways: "
            f"{share:.0%} of those of P = 100."
        )
    percents = [name.rpartition("P=")[2] for name in results if name.startswith(FEEDBACK)]
    for percent in percents:
        ours = f"P={percent}"
        parts.append(f"\n\nBeside Top-P at P = {percent} ({_estimate(results[ours]).text()}):\n")
        for name in results:
            if name.endswith(f"/{ours}") and "down" not in name:
                gap = difference(results, name, ours)
                parts.append(
                    f"\n- {name.removesuffix(f'/{ours}')}: {_estimate(results[name]).text()}, "
                    f"{_judged(gap, sign)}, with {results[name]['bytes_up'] / 1e3:,.0f} KB up "
                    f"against {results[ours]['bytes_up'] / 1e3:,.0f}"
                )
    return " ".join(parts).replace(" \n", "\n")


def _as_good(results: Results, name: str, sign: int) -> bool:
    gap = difference(results, name, "P=100")
    return sign * gap.mean - gap.ci95 <= 0


def _judged(gap: Estimate, sign: int) -> str:
    if abs(gap.mean) <= gap.ci95:
        return "not to be told apart"
    return "worse" if sign * gap.mean > 0 else "better"


def _protocol(network: str, settings: dict[str, Setting], seeds: int, target: float) -> str:
    setting = settings["P=100"]
    scenario, spec = setting.scenario, setting.scenario.spec
    tuned = "The server's step is the spec's; no setting was given one of its own."
    if network == "sine":
        steps = ", ".join(f"{name} {each.step:.2g}" for name, each in settings.items())
        tuned = (
            f"Each setting was given its best of some factors of the server's step, by a "
            f"float64 run of half as many rounds with another seed and sines. They are: {steps}."
        )
    return (
        f"**{network}.** The spec's network, partition and rates, {scenario.rounds} rounds of "
        f"{spec.rounds.cohort} boards in the boards' own arithmetic, {seeds} seeds, "
        f"{setting.tasks} held-out tasks. P is that of the way up; the way down sends "
        f"{spec.rounds.percent_down:g} % everywhere but in `down=100`. Values have "
        f"{spec.training.value_bits} bits unless a name says another width. The same boards take "
        f"part in each round, so that what they keep goes with the next update. The target is "
        f"{target:.3f}: what P = 100 ends at, {TARGET:.0%} worse. It is looked for at "
        f"{setting.points} points of a run, with fewer held-out tasks than at the end. {tuned} "
        "Intervals are 95 %, over seeds; bytes are those of the fleet and the whole run."
    )


_RIVALS: Final = (
    "`random` draws P % of the parameters anew for each board and round. `threshold` sends changes "
    "of at least a threshold that the fleet shares; it follows from how many entries came, so that "
    "P % are sent on average. `periodic` sends everything in each k-th round, k = 100 / P, and "
    "nothing between; without feedback what boards learn between is lost. All go through the same "
    "codec, which sends no zero: random-P often draws parameters that did not change, and periodic "
    "spends nothing on gaps, so they take fewer bytes at the same P. Random-P's places could be "
    "drawn from a seed that both sides know, and would then cost nothing; here they are sent."
)
