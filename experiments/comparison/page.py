"""The page, the pictures and the tables of a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from experiments.harness.plots import Plot, Series
from experiments.harness.prose import Prose
from experiments.harness.report import Report, Row, markdown
from experiments.methods.catalogue import METHODS, OURS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.comparison.result import ComparisonResult, Effort, MethodResult, Point, Repeat

    Axis = Literal["rounds", "bytes", "operations"]

PROSE: Final = Prose(Path(__file__).with_name("page.md"))
MEGA: Final = 1e6
GIGA: Final = 1e9
HELD_OUT: Final = {
    "sine": "sines drawn anew",
    "omniglot": "characters that no board learns from, a fifth of the data set",
    "keywords": "homes of four speakers whom no board learns from, a fifth of all",
}


def report(result: ComparisonResult) -> Report:
    """All that a comparison leaves in its folder."""
    return Report(
        result.comparison.title,
        results={each.name: record(each) for each in result.methods},
        tables=_tables(result.methods),
        plots=_plots(result),
        summary=_summary(result.methods),
        findings=_findings(result),
        protocol=_protocol(result),
    )


def record(each: MethodResult) -> dict[str, Any]:
    """For results.json."""
    end = each.end
    return {
        each.scenario.metric: {"mean": end.value.mean, "ci95": end.value.ci95},
        "bytes_up": round(end.bytes_up),
        "bytes_down": round(end.bytes_down),
        "operations": round(end.operations),
        "rounds": end.rounds,
        "curve": [[p.rounds, round(p.bytes), p.value.mean] for p in each.curve],
    }


def _tables(methods: Sequence[MethodResult]) -> dict[str, list[Row]]:
    return {
        "results": [_result_row(each) for each in methods],
        "curves": [_curve_row(each, point) for each in methods for point in each.curve],
        "runs": [
            {"method": each.name, "seed": seed, each.scenario.metric: value}
            for each in methods
            for seed, value in enumerate(each.finals)
        ],
        "search": [
            {"method": each.name, each.scenario.metric: run.value, **run.settings}
            for each in methods
            for run in each.search
        ],
    }


def _result_row(each: MethodResult) -> Row:
    end = each.end
    return {
        "method": each.name,
        each.scenario.metric: end.value.mean,
        "ci95": end.value.ci95,
        "bytes_up": round(end.bytes_up),
        "bytes_down": round(end.bytes_down),
        "operations": round(end.operations),
    }


def _curve_row(each: MethodResult, point: Point) -> Row:
    return {
        "method": each.name,
        "rounds": point.rounds,
        "bytes_up": point.bytes_up,
        "bytes_down": point.bytes_down,
        "operations": point.operations,
        each.scenario.metric: point.value.mean,
        "ci95": point.value.ci95,
    }


def _summary(methods: Sequence[MethodResult]) -> tuple[list[str], list[list[str]]]:
    """A line a method."""
    metric = methods[0].scenario.metric
    head = ["method", metric, "MB up", "MB down", "giga-operations", "arrays on a board, KB"]
    return head, [
        [
            each.name,
            _value_text(each),
            f"{each.end.bytes_up / MEGA:.2f}",
            f"{each.end.bytes_down / MEGA:.2f}",
            f"{each.end.operations / GIGA:.2f}",
            _arrays(each),
        ]
        for each in methods
    ]


def _value_text(each: MethodResult) -> str:
    """With its interval."""
    value = each.end.value
    if each.scenario.metric == "loss":
        return value.text()
    return f"{100 * value.mean:.1f} % ± {100 * value.ci95:.1f}"


def _arrays(each: MethodResult) -> str:
    """Kilobytes that a board's arrays take."""
    needed = METHODS[each.method].arrays
    return "-" if needed is None else f"{needed(each.scenario.spec, each.settings) / 1000:.0f}"


def _plots(result: ComparisonResult) -> list[Plot]:
    """The value over rounds, bytes and operations; and of variants, over rounds."""
    methods = result.of_repeat("")
    main = [each for each in methods if METHODS[each.method].variant_of is None]
    ours = [each for each in methods if OURS in {each.method, METHODS[each.method].variant_of}]
    metric = methods[0].scenario.metric
    operations = "giga-operations (multiply-accumulates) on all boards"
    plots = [
        _plot(main, "rounds", f"{metric} on held-out tasks over rounds", "rounds", "rounds"),
        _plot(main, "bytes", f"{metric} on held-out tasks over bytes", "MB up and down", "bytes"),
        _plot(
            main,
            "operations",
            f"{metric} on held-out tasks over operations",
            operations,
            "operations",
        ),
        _plot(ours, "parts", f"{metric}, each part taken out", "rounds", "rounds"),
    ]
    repeat = result.comparison.repeat
    if repeat is not None and (again := result.of_repeat(repeat.name)):
        plots.append(
            _plot(again, repeat.name, f"{metric}, {repeat.name}, over bytes", "MB", "bytes")
        )
    return plots


def _plot(methods: Sequence[MethodResult], name: str, title: str, label: str, axis: Axis) -> Plot:
    """Of what takes no rounds only the last value is known: a line right through."""
    series = []
    learning = [each.curve for each in methods if each.end.rounds]
    reach = [
        min(_place(curve[0], axis) for curve in learning),
        max(_place(curve[-1], axis) for curve in learning),
    ]
    for each in methods:
        along = [_place(point, axis) for point in each.curve]
        values = [point.value.mean for point in each.curve]
        widths = [point.value.ci95 for point in each.curve]
        if not each.end.rounds or not max(along):
            along, values, widths = reach, [values[-1]] * 2, [widths[-1]] * 2
        series.append(Series(each.name, along, values, widths))
    metric = methods[0].scenario.metric
    return Plot(name, title, label, metric, series, log_x=axis != "rounds", log_y=metric == "loss")


def _place(point: Point, axis: Axis) -> float:
    if axis == "rounds":
        return point.rounds
    return point.bytes / MEGA if axis == "bytes" else point.operations / GIGA


def _findings(result: ComparisonResult) -> str:
    """How TinyMetaFed stands to each of the others."""
    parts = []
    for name in dict.fromkeys(each.repeat for each in result.methods):
        ours, *others = result.of_repeat(name)
        table = markdown(_AGAINST, [_against(ours, each) for each in others])
        parts.append(PROSE.fill("beside", ours=ours.name, table=table))
    parts.append(PROSE.fill("columns"))
    return "\n\n".join(parts)


_AGAINST: Final = ("method", "ours to its", "its value reached with", "its value at our bytes")


def _against(ours: MethodResult, other: MethodResult) -> list[str]:
    mine, its = ours.end.value.mean, other.end.value.mean
    is_loss = ours.scenario.metric == "loss"
    ratio = f"{mine / its:.2f}" if is_loss else f"{100 * (mine - its):+.1f} points"
    total = other.end.bytes
    reached = ours.first(its)
    if reached is None:
        share = "not reached"
    elif not total:
        share = f"{reached.bytes / MEGA:.2f} MB; it sends none"
    else:
        share = f"{100 * reached.bytes / total:.1f} %"
    return [other.name, ratio, share, _with_bytes(ours, other)]


def _with_bytes(ours: MethodResult, other: MethodResult) -> str:
    """The other's value with as many bytes as ours took in all."""
    within = [point for point in other.curve if point.bytes <= ours.end.bytes]
    if not within:
        return "none yet"
    mean = within[-1].value.mean
    return f"{mean:.3f}" if ours.scenario.metric == "loss" else f"{100 * mean:.1f} %"


def _protocol(result: ComparisonResult) -> str:
    """All that somebody needs to know who wants to make it again, or to doubt it."""
    methods, effort = result.methods, result.effort
    spec = methods[0].scenario.spec
    about = [[name, METHODS[name].about] for name in dict.fromkeys(m.method for m in methods)]
    names = list(dict.fromkeys(name for each in methods for name in each.settings))
    settings = [
        [each.name, *(f"{each.settings[n]:g}" if n in each.settings else "" for n in names)]
        for each in methods
    ]
    rule = spec.rounds.optimizer.rule
    local = sum(layer.parameters for layer in spec.layers if layer.local)
    return PROSE.fill(
        "protocol",
        network=result.comparison.network,
        shared=f"{spec.global_count:,}",
        local=f"{local:,}",
        rounds=f"{effort.rounds:,}",
        cohort=str(spec.rounds.cohort),
        support=str(spec.training.support),
        query=str(spec.training.query),
        repeat=_repeat(result),
        test_tasks=f"{effort.test_tasks:,}",
        held_out=HELD_OUT[result.comparison.network],
        curve_tasks=f"{effort.curve_tasks:,}",
        seeds=str(result.seeds),
        search_runs=str(effort.search_runs),
        search_rounds=str(effort.search_rounds),
        search_repeats=_repeats(effort),
        validation_tasks=str(effort.validation_tasks),
        server=PROSE.fill("step") if rule == "step" else PROSE.fill("optimizer", rule=rule),
        methods=markdown(["method", "how it learns"], about),
        settings=markdown(["settings found", *names], settings),
    )


def _repeats(effort: Effort) -> str:
    if effort.search_repeats == 1:
        return ""
    return ", " + PROSE.fill("search-repeats", repeats=str(effort.search_repeats))


def _repeat(result: ComparisonResult) -> str:
    """What is different in the repeat, if it was made."""
    repeat: Repeat | None = result.comparison.repeat
    if repeat is None or not (again := result.of_repeat(repeat.name)):
        return ""
    spec = again[0].scenario.spec
    is_longer = spec.rounds.count > result.effort.rounds
    return " " + PROSE.fill(
        "repeat",
        name=repeat.name,
        rounds=f"{spec.rounds.count:,}",
        support=str(spec.training.support),
        as_many=", " + PROSE.fill("as-many") if is_longer else "",
    )
