"""The page, the pictures and the tables of the experiment `top-p`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from experiments.harness.plots import Plot, Series
from experiments.harness.prose import Prose
from experiments.harness.report import Report
from experiments.top_p import observer_page

if TYPE_CHECKING:
    from experiments.harness.report import Row
    from experiments.top_p.result import Comparison, Entry, TopPResult
    from simulation.statistics import Estimate

PROSE: Final = Prose(Path(__file__).with_name("page.md"))
HEAD: Final = (
    "setting",
    "loss or accuracy",
    "KB up",
    "KB down",
    "rounds to target",
    "KB to target",
)


def report(result: TopPResult) -> Report:
    """All that the experiment leaves in its folder."""
    comparisons = result.comparisons
    findings = [_findings(each) for each in comparisons]
    protocol = [_protocol(each) for each in comparisons]
    plots = [plot for each in comparisons for plot in (_by_percent(each), _by_bytes(each))]
    tables = {
        each.scenario.network: [_row(entry) for entry in each.entries] for each in comparisons
    }
    return Report(
        title="How much to send",
        results={
            "settings": [_record(entry) for each in comparisons for entry in each.entries],
            "observer": observer_page.records(result.observer),
        },
        tables=tables | {"observer": observer_page.rows(result.observer)},
        plots=plots + observer_page.plots(result.observer),
        summary=(HEAD, [_line(each, entry) for each in comparisons for entry in each.entries]),
        findings="\n\n".join([*findings, observer_page.findings(result.observer)]),
        protocol="\n\n".join(
            [*protocol, PROSE.fill("baselines"), observer_page.protocol(result.observer)]
        ),
    )


def _record(entry: Entry) -> dict[str, object]:
    """For results.json."""
    return {
        **entry.result.record(),
        "rounds_to_target": entry.to_target.rounds,
        "bytes_to_target": entry.to_target.bytes,
        "seeds_at_target": entry.to_target.seeds,
    }


def _row(entry: Entry) -> Row:
    result, spec, target = entry.result, entry.result.spec, entry.to_target
    return {
        "selection": result.selection,
        "percent": spec.training.percent,
        "percent_down": spec.rounds.percent_down,
        "value_bits": spec.training.value_bits,
        "feedback": result.setting.feedback,
        "value": result.value.mean,
        "ci95": result.value.ci95,
        "bytes_up": round(result.bytes_up),
        "bytes_down": round(result.bytes_down),
        "operations": round(result.operations),
        "rounds": result.setting.scenario.rounds,
        "rounds_to_target": "" if target.rounds is None else round(target.rounds),
        "bytes_to_target": "" if target.bytes is None else round(target.bytes),
        "seeds_at_target": target.seeds,
    }


def _way(entry: Entry) -> str:
    """How it differs from Top-P; empty of Top-P itself."""
    result, setting = entry.result, entry.result.setting
    parts = [
        f"int{setting.bits}" if setting.bits else "",
        "" if result.selection == "top" else result.selection,
        "feedback" if setting.feedback else "",
    ]
    return "+".join(part for part in parts if part)


def _name(entry: Entry) -> str:
    way, down = _way(entry), entry.result.setting.percent_down
    return (
        (f"{way}/" if way else "")
        + f"P={entry.percent:g}"
        + ("" if down is None else f"/down={down:g}")
    )


def _line(comparison: Comparison, entry: Entry) -> list[str]:
    result, target = entry.result, entry.to_target
    some = "" if target.seeds == len(result.runs) else f" ({target.seeds} of {len(result.runs)})"
    return [
        f"{comparison.scenario.network} {_name(entry)}",
        result.value.text(),
        f"{result.bytes_up / 1e3:,.0f}",
        f"{result.bytes_down / 1e3:,.0f}",
        "never" if target.rounds is None else f"{target.rounds:.0f}{some}",
        "never" if target.bytes is None else f"{target.bytes / 1e3:,.0f}",
    ]


def _by_way(comparison: Comparison) -> dict[str, list[Entry]]:
    """All that send alike, but for P; without those that send all down."""
    ways: dict[str, list[Entry]] = {}
    for entry in comparison.entries:
        if entry.result.setting.percent_down is None:
            ways.setdefault(_way(entry) or "Top-P", []).append(entry)
    return ways


def _by_percent(comparison: Comparison) -> Plot:
    network, metric = comparison.scenario.network, comparison.scenario.metric
    series = []
    for way, entries in _by_way(comparison).items():
        first = entries[0].result
        if first.setting.bits is None and first.selection != "periodic":
            values = [entry.result.value for entry in entries]
            series.append(
                Series(
                    name=way,
                    x=[entry.percent for entry in entries],
                    y=[value.mean for value in values],
                    ci95=[value.ci95 for value in values],
                )
            )
    return Plot(
        name=f"top-p-{network}",
        title=f"{network}: {metric} by P",
        x="P, % of shared parameters",
        y=f"held-out {metric}",
        series=series,
        log_x=True,
        log_y=metric == "loss",
    )


def _by_bytes(comparison: Comparison) -> Plot:
    network, metric = comparison.scenario.network, comparison.scenario.metric
    series = []
    for way, entries in _by_way(comparison).items():
        first = entries[0].result
        is_plain_threshold = first.selection == "threshold" and not first.setting.feedback
        if first.selection == "top" or is_plain_threshold:
            results = [entry.result for entry in entries]
            kilobytes = [each.bytes / 1e3 for each in results]
            series.append(Series(name=way, x=kilobytes, y=[each.value.mean for each in results]))
    return Plot(
        name=f"top-p-bytes-{network}",
        title=f"{network}: {metric} by bytes of a run",
        x="KB up and down, whole fleet",
        y=f"held-out {metric}",
        series=series,
        log_x=True,
        log_y=metric == "loss",
    )


def _findings(comparison: Comparison) -> str:
    metric = comparison.scenario.metric
    sign = 1 if metric == "loss" else -1
    full = comparison.top(100.0)
    best = min(comparison.tops, key=lambda entry: sign * entry.result.value.mean)
    said = [
        PROSE.fill(
            "findings",
            network=comparison.scenario.network,
            metric=metric,
            full=full.result.value.text(),
            best=f"{best.percent:g}",
            value=best.result.value.text(),
        ),
        _smallest(comparison, sign),
        *_cheapest(comparison),
    ]
    beside = [
        _beside(comparison, entry.percent, sign)
        for entry in comparison.entries
        if _way(entry) == "feedback"
    ]
    return "\n\n".join([" ".join(said), *beside])


def _smallest(comparison: Comparison, sign: int) -> str:
    """The first P that is not worse than all, by the seeds' spread."""
    full = comparison.top(100.0).result
    for entry in comparison.tops:
        gap = entry.result.difference(full)
        if entry.percent != 100.0 and sign * gap.mean - gap.ci95 <= 0:
            share = entry.result.bytes_up / full.bytes_up
            return PROSE.fill("smallest", percent=f"{entry.percent:g}", share=f"{share:.0%}")
    return PROSE.fill("none-smaller")


def _cheapest(comparison: Comparison) -> list[str]:
    """Of those that reach the target; nothing where P = 100 does not."""
    full = comparison.top(100.0).to_target.bytes
    reached = [
        (entry.to_target.bytes, entry.percent)
        for entry in comparison.tops
        if entry.to_target.bytes is not None
    ]
    if full is None:
        return []
    least, percent = min(reached, key=lambda pair: pair[0])
    return [
        PROSE.fill(
            "cheapest",
            percent=f"{percent:g}",
            target=f"{comparison.target:.3f}",
            share=f"{least / full:.0%}",
        )
    ]


def _beside(comparison: Comparison, percent: float, sign: int) -> str:
    """All that was run at this P beside Top-P."""
    top = comparison.top(percent).result
    lines = [
        PROSE.fill(
            "entry",
            name=_way(entry),
            value=entry.result.value.text(),
            verdict=_verdict(entry.result.difference(top), sign),
            kilobytes=f"{entry.result.bytes_up / 1e3:,.0f}",
            top_kilobytes=f"{top.bytes_up / 1e3:,.0f}",
        )
        for entry in comparison.entries
        if entry.percent == percent and _way(entry)
    ]
    return PROSE.fill(
        "beside", percent=f"{percent:g}", value=top.value.text(), entries="\n".join(lines)
    )


def _verdict(gap: Estimate, sign: int) -> str:
    if abs(gap.mean) <= gap.ci95:
        return "not distinguishable"
    return "worse" if sign * gap.mean > 0 else "better"


def _protocol(comparison: Comparison) -> str:
    scenario, spec = comparison.scenario, comparison.scenario.spec
    tuning = PROSE.fill("not-tuned")
    if comparison.is_tuned:
        steps = [f"{_name(each)} {each.result.setting.step:.2g}" for each in comparison.entries]
        tuning = PROSE.fill("tuned", steps=", ".join(steps))
    return PROSE.fill(
        "protocol",
        network=scenario.network,
        rounds=str(scenario.rounds),
        cohort=str(spec.rounds.cohort),
        seeds=str(comparison.seeds),
        tasks=str(comparison.tasks),
        percent_down=f"{spec.rounds.percent_down:g}",
        value_bits=str(spec.training.value_bits),
        target=f"{comparison.target:.3f}",
        margin=f"{comparison.margin:.0%}",
        points=str(comparison.points),
        tuning=tuning,
    )
