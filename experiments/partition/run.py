"""Which layers should stay local: partial reconstruction beside full transmission, and a sweep."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from experiments.harness.plots import Plot, Series
from experiments.harness.report import Report, Row, markdown
from experiments.harness.scenario import Scenario
from experiments.methods.settings import Setting, compare, difference, partitioned, spec_of, tune
from protocol.spec.model import Dense, Pool
from simulation.statistics import Estimate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from experiments.harness.request import Request
    from experiments.harness.study import Study
    from experiments.methods.settings import Results
    from protocol.spec.spec import Spec

FULL: Final = {"sine": 300, "omniglot": 80, "keywords": 150}
"""Rounds: enough to tell partitions apart, and fewer than the specs' where these take long."""
QUICK: Final = {"sine": 40, "omniglot": 6, "keywords": 6}
TASKS: Final = {"sine": 1000, "omniglot": 300, "keywords": 300}
"""Held-out tasks at the end of a run."""
SEEDS_MOST: Final = {"sine": 100, "omniglot": 3, "keywords": 3}
POINTS: Final = 8
QUICK_POINTS: Final = 2
QUICK_TASKS: Final = 60
CHOICES: Final = {
    "sine": [(rate, step) for rate in (0.5, 1.0, 2.0) for step in (0.1, 1 / 3, 1.0)],
    "omniglot": [(1.0, 1.0), (1.0, 1 / 3), (2.0, 1 / 3), (0.5, 1.0)],
    "keywords": [(1.0, 1.0), (1.0, 1 / 3), (2.0, 1 / 3), (0.5, 1.0)],
}
"""Factors of both of the spec's rates, and of its step_max: each partition is given its best."""
QUICK_CHOICES: Final = [(1.0, 1.0), (1.0, 1 / 3)]
NONE: Final = "local=none"


@dataclass(frozen=True)
class Sweep:
    """The partitions of a network."""

    scenario: Scenario
    settings: Mapping[str, Setting]
    """By name."""
    given: str
    """The spec's own."""
    refused: Mapping[str, str]
    """Partitions that a spec may not have, and why."""


def make(request: Request, study: Study) -> Report:
    """Sweep the partitions of sine, and of the networks for which data are given."""
    report = Report("Which layers stay local")
    findings, protocol, lines = [], [], []
    for network in ("sine", *request.data):
        found = _sweep(network, request)
        rounds = max(1, found.scenario.rounds // 2)
        seeds = min(request.seeds, SEEDS_MOST[network])
        if request.quick and network != "sine":
            seeds = 1
        choices = QUICK_CHOICES if request.quick else CHOICES[network]
        tuned = tune(study, found.settings, choices, rounds)
        sweep = replace(found, settings=tuned)
        results = compare(study, tuned, seeds, network)
        prefix = "" if network == "sine" else f"{network}/"
        report.results |= {prefix + name: result for name, result in results.items()}
        report.tables[network] = [_row(sweep, name, results) for name in results]
        report.plots.append(_plot(sweep, results))
        lines += [_line(sweep, name, results) for name in results]
        findings.append(_findings(sweep, results))
        protocol.append(_protocol(sweep, seeds, len(choices), rounds))
    report.summary = (
        ("partition", "loss or accuracy", "KB up", "KB down", "M operations", "shared", "heap KB"),
        lines,
    )
    report.findings = (
        "Layers that are local stay on the board, are rebuilt there in every round, and cost no "
        "byte. Which should be? `local=none` is full transmission: all layers are shared, and all "
        "learn from all of a round's samples; at the exam all adapt, one sample after the other. "
        "`all sent` sends every shared parameter both ways, 100 % of them.\n\n"
        + "\n\n".join(findings)
    )
    report.protocol = "\n\n".join(protocol)
    return report


def _sweep(network: str, request: Request) -> Sweep:
    """Every set of local layers; on keywords only the last, the last two and the first."""
    rounds = (QUICK if request.quick else FULL)[network]
    scenario = Scenario(network, rounds, request.data.get(network))
    spec = scenario.spec
    base = Setting(scenario, TASKS[network], POINTS)
    if request.quick:
        base = replace(base, tasks=QUICK_TASKS, points=QUICK_POINTS)
    places = [n for n, layer in enumerate(spec.model.layers) if not isinstance(layer, Pool)]
    sets = [some for size in range(1, len(places) + 1) for some in combinations(places, size)]
    if network == "keywords":
        sets = [(places[-1],), tuple(places[-2:]), (places[0],)]
    own = tuple(place for place in places if _is_local(spec, place))
    given = "local=" + ",".join(map(str, own))
    # In pictures what sends all looks like what it is compared with, but for the dashes.
    settings = {NONE: replace(base, local=()), given: replace(base, local=own)}
    refused = {}
    for local in sets:
        name = "local=" + ",".join(map(str, local))
        try:
            partitioned(spec, local)
        except ValidationError as error:
            refused[name] = error.errors()[0]["msg"].removeprefix("Value error, ")
        else:
            settings[name] = replace(base, local=local)
    for name in (NONE, given):
        everything = replace(settings[name], percent=100.0, percent_down=100.0)
        settings[f"{name}/all sent"] = everything
    return Sweep(scenario, settings, given, refused)


def _is_local(spec: Spec, place: int) -> bool:
    layer = spec.model.layers[place]
    return not isinstance(layer, Pool) and layer.local


def _shared(spec: Spec) -> float:
    """The share of all parameters that may leave the board."""
    return spec.global_count / sum(layer.parameters for layer in spec.layers)


def _heap(spec: Spec) -> float:
    """Kilobytes of heap that a board takes."""
    return spec.heap_needed / 1024


def _value(sweep: Sweep, result: Results, name: str) -> Estimate:
    return Estimate(**result[name][sweep.scenario.metric])


def _row(sweep: Sweep, name: str, results: Results) -> Row:
    setting, result = sweep.settings[name], results[name]
    spec, value = spec_of(setting), _value(sweep, results, name)
    return {
        "partition": name,
        sweep.scenario.metric: value.mean,
        "ci95": value.ci95,
        **{key: round(result[key]) for key in ("bytes_up", "bytes_down", "operations")},
        "shared": _shared(spec),
        "percent": spec.training.percent,
        "heap": round(_heap(spec) * 1024),
        "rate factor": setting.rate,
        "step factor": setting.step,
    }


def _line(sweep: Sweep, name: str, results: Results) -> list[str]:
    result, spec = results[name], spec_of(sweep.settings[name])
    return [
        f"{sweep.scenario.network} {name}{' (the spec)' if name == sweep.given else ''}",
        _value(sweep, results, name).text(),
        f"{result['bytes_up'] / 1e3:,.0f}",
        f"{result['bytes_down'] / 1e3:,.0f}",
        f"{result['operations'] / 1e6:,.0f}",
        f"{_shared(spec):.0%}",
        f"{_heap(spec):.0f}",
    ]


def _plot(sweep: Sweep, results: Results) -> Plot:
    series = []
    for name, result in results.items():
        _, sent, values = zip(*result["curve"], strict=True)
        series.append(Series(name, [each / 1e3 for each in sent], values))
    metric = sweep.scenario.metric
    title = f"{sweep.scenario.network}: {metric} by bytes, for each partition"
    name = f"partition-{sweep.scenario.network}"
    label = f"held-out {metric}"
    both = "KB up and down, whole fleet"
    return Plot(name, title, both, label, series, log_x=True, log_y=metric == "loss")


def _findings(sweep: Sweep, results: Results) -> str:
    network, metric = sweep.scenario.network, sweep.scenario.metric
    sign = 1 if metric == "loss" else -1
    swept = [name for name in results if name != NONE and not name.endswith("all sent")]
    best = min(swept, key=lambda name: sign * _value(sweep, results, name).mean)
    parts = [f"**{network}.** With {sweep.given}, the spec's own, {metric} ends at "]
    parts[0] += f"{_value(sweep, results, sweep.given).text()}."
    if best == sweep.given:
        parts.append("No other partition that was swept did better in the mean.")
    else:
        value = _value(sweep, results, best).text()
        gap = difference(results, best, sweep.given)
        parts.append(f"The best is {best}, at {value}: {_told(gap)}.")
    for other in (NONE, f"{NONE}/all sent"):
        gap = difference(results, sweep.given, other)
        times = _bytes(results, other) / _bytes(results, sweep.given)
        parts.append(
            f"Against `{other}`, which ends at {_value(sweep, results, other).text()} and takes "
            f"{times:.2f} times the bytes: {_told(gap)}."
        )
    gap = difference(results, sweep.given, f"{sweep.given}/all sent")
    parts.append(f"What sending only the largest changes costs or gains there: {_told(gap)}.")
    worst = max(swept, key=lambda name: sign * _value(sweep, results, name).mean)
    parts.append(f"The worst is {worst}, at {_value(sweep, results, worst).text()}.")
    return " ".join(parts)


def _bytes(results: Results, name: str) -> float:
    return float(results[name]["bytes_up"] + results[name]["bytes_down"])


def _told(gap: Estimate) -> str:
    """A difference, and whether these seeds tell it from none."""
    text = f"a difference of {gap.mean:+.3f} ± {gap.ci95:.3f}, seed by seed"
    return text if abs(gap.mean) > gap.ci95 else f"{text}, which these seeds cannot tell from none"


def _protocol(sweep: Sweep, seeds: int, choices: int, tuned: int) -> str:
    scenario, spec = sweep.scenario, sweep.scenario.spec
    setting = sweep.settings[sweep.given]
    layers = markdown(
        ("layer", "what", "parameters"),
        [
            (str(place), _named(spec, place), f"{shape.parameters:,}")
            for place, shape in enumerate(spec.layers)
        ],
    )
    chosen = ", ".join(
        f"{name} {each.rate:g} and {each.step:.2g}" for name, each in sweep.settings.items()
    )
    refused = "".join(f"\n- {name} was left out: {why}" for name, why in sweep.refused.items())
    return (
        f"**{scenario.network}.** The spec's network, P = {spec.training.percent:g} up and "
        f"{spec.rounds.percent_down:g} down, {spec.training.support} support and "
        f"{spec.training.query} query samples, {scenario.rounds} rounds of {spec.rounds.cohort} "
        f"boards in the boards' own arithmetic; {seeds} seeds, {setting.tasks} held-out tasks at "
        f"the end of each. Each partition was given the best of {choices} pairs of factors, of "
        f"both rates and of the server's step, by float64 runs of {tuned} rounds with another "
        "seed and tasks that are not those of the test. Bytes are those of the whole fleet and "
        "run; operations are multiply-accumulates of all boards' training; shared is the share of "
        "parameters that may leave the board at all; heap is what a board needs (an RP2040 has "
        f"{spec.heap / 1024:.0f} KB). Intervals are 95 %, over seeds. Single layers and their "
        f"sets are by place.\n\n{layers}\n\nFactors: {chosen}.{refused}"
    )


def _named(spec: Spec, place: int) -> str:
    layer = spec.model.layers[place]
    match layer:
        case Pool():
            return f"mean of {layer.size} x {layer.size}"
        case Dense():
            return f"dense, {layer.outputs} outputs"
    return f"{layer.kind}, {spec.layers[place].outputs} channels"
