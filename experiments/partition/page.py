"""The page, the pictures and the tables of the experiment `partition`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from experiments.harness.plots import Plot, Series
from experiments.harness.prose import Prose
from experiments.harness.report import Report, markdown
from protocol.spec.model import Dense, Pool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.harness.report import Row
    from experiments.methods.results import SettingResult
    from experiments.partition.result import Partition, Places, Sweep
    from protocol.spec.spec import Spec
    from simulation.statistics import Estimate

PROSE: Final = Prose(Path(__file__).with_name("page.md"))
HEAD: Final = (
    "partition",
    "loss or accuracy",
    "KB up",
    "KB down",
    "M operations",
    "shared",
    "heap KB",
)


def report(sweeps: Sequence[Sweep]) -> Report:
    """All that the experiment leaves in its folder."""
    findings = [PROSE.fill("introduction")] + [_findings(sweep) for sweep in sweeps]
    return Report(
        title="Which layers stay local",
        results={
            "partitions": [
                {"all_sent": each.all_sent, **each.result.record()}
                for sweep in sweeps
                for each in sweep.partitions
            ]
        },
        tables={
            sweep.scenario.network: [_row(each) for each in sweep.partitions] for sweep in sweeps
        },
        plots=[_plot(sweep) for sweep in sweeps],
        summary=(HEAD, [_line(sweep, each) for sweep in sweeps for each in sweep.partitions]),
        findings="\n\n".join(findings),
        protocol="\n\n".join(_protocol(sweep) for sweep in sweeps),
    )


def _name(local: Places, *, all_sent: bool = False) -> str:
    name = "local=" + (",".join(map(str, local)) or "none")
    return f"{name}/all sent" if all_sent else name


def _title(partition: Partition) -> str:
    return _name(partition.local, all_sent=partition.all_sent)


def _shared(spec: Spec) -> float:
    """The share of all parameters that may leave the board."""
    return spec.global_count / sum(layer.parameters for layer in spec.layers)


def _row(partition: Partition) -> Row:
    result = partition.result
    setting, spec, value = result.setting, result.spec, result.value
    return {
        "partition": _title(partition),
        setting.scenario.metric: value.mean,
        "ci95": value.ci95,
        "bytes_up": round(result.bytes_up),
        "bytes_down": round(result.bytes_down),
        "operations": round(result.operations),
        "shared": _shared(spec),
        "percent": spec.training.percent,
        "heap": spec.heap_needed,
        "rate factor": setting.rate,
        "step factor": setting.step,
    }


def _line(sweep: Sweep, partition: Partition) -> list[str]:
    result = partition.result
    is_own = partition.local == sweep.own and not partition.all_sent
    return [
        f"{sweep.scenario.network} {_title(partition)}{' (the spec)' if is_own else ''}",
        result.value.text(),
        f"{result.bytes_up / 1e3:,.0f}",
        f"{result.bytes_down / 1e3:,.0f}",
        f"{result.operations / 1e6:,.0f}",
        f"{_shared(result.spec):.0%}",
        f"{result.spec.heap_needed / 1024:.0f}",
    ]


def _plot(sweep: Sweep) -> Plot:
    network, metric = sweep.scenario.network, sweep.scenario.metric
    series = []
    for partition in sweep.partitions:
        curve = partition.result.curve
        kilobytes = [point.bytes / 1e3 for point in curve]
        values = [point.value for point in curve]
        series.append(Series(name=_title(partition), x=kilobytes, y=values))
    return Plot(
        name=f"partition-{network}",
        title=f"{network}: {metric} by bytes, for each partition",
        x="KB up and down, whole fleet",
        y=f"held-out {metric}",
        series=series,
        log_x=True,
        log_y=metric == "loss",
    )


def _findings(sweep: Sweep) -> str:
    metric = sweep.scenario.metric
    sign = 1 if metric == "loss" else -1
    own, none = sweep.find(sweep.own), sweep.find(())
    all_of_none, all_of_own = sweep.find((), all_sent=True), sweep.find(sweep.own, all_sent=True)
    swept = [each for each in sweep.partitions if each.local and not each.all_sent]
    best = min(swept, key=lambda each: sign * each.result.value.mean)
    worst = max(swept, key=lambda each: sign * each.result.value.mean)
    return PROSE.fill(
        "findings",
        network=sweep.scenario.network,
        own=_name(sweep.own),
        metric=metric,
        value=own.value.text(),
        best=_best(sweep, best),
        none=none.value.text(),
        none_times=_times(none, own),
        none_gap=_gap(own.difference(none)),
        all=all_of_none.value.text(),
        all_times=_times(all_of_none, own),
        all_gap=_gap(own.difference(all_of_none)),
        sent_gap=_gap(own.difference(all_of_own)),
        worst=_title(worst),
        worst_value=worst.result.value.text(),
    )


def _best(sweep: Sweep, best: Partition) -> str:
    if best.local == sweep.own:
        return PROSE.fill("best-own")
    value, gap = best.result.value, best.result.difference(sweep.find(sweep.own))
    return PROSE.fill("best-other", best=_title(best), value=value.text(), gap=_gap(gap))


def _times(result: SettingResult, own: SettingResult) -> str:
    return f"{result.bytes / own.bytes:.2f}"


def _gap(gap: Estimate) -> str:
    """A difference, and whether these seeds distinguish it from none."""
    section = "clear" if abs(gap.mean) > gap.ci95 else "unclear"
    return PROSE.fill(section, gap=f"{gap.mean:+.3f} ± {gap.ci95:.3f}")


def _protocol(sweep: Sweep) -> str:
    spec = sweep.scenario.spec
    layers = [
        (str(place), _kind(spec, place), f"{shape.parameters:,}")
        for place, shape in enumerate(spec.layers)
    ]
    factors = [
        f"{_title(each)} {each.result.setting.rate:g} and {each.result.setting.step:.2g}"
        for each in sweep.partitions
    ]
    invalid = [
        "\n" + PROSE.fill("invalid", partition=_name(local), why=why)
        for local, why in sweep.invalid.items()
    ]
    return PROSE.fill(
        "protocol",
        network=sweep.scenario.network,
        percent=f"{spec.training.percent:g}",
        percent_down=f"{spec.rounds.percent_down:g}",
        support=str(spec.training.support),
        query=str(spec.training.query),
        rounds=str(sweep.scenario.rounds),
        cohort=str(spec.rounds.cohort),
        seeds=str(sweep.seeds),
        tasks=str(sweep.tasks),
        choices=str(sweep.choices),
        tuning_rounds=str(sweep.tuning_rounds),
        heap=f"{spec.heap / 1024:.0f}",
        layers=markdown(("layer", "what", "parameters"), layers),
        factors=", ".join(factors),
        invalid="".join(invalid),
    )


def _kind(spec: Spec, place: int) -> str:
    layer = spec.model.layers[place]
    match layer:
        case Pool():
            return f"mean of {layer.size} x {layer.size}"
        case Dense():
            return f"dense, {layer.outputs} outputs"
    return f"{layer.kind}, {spec.layers[place].outputs} channels"
