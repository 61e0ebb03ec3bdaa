"""The page, the pictures and the tables of the experiment `online`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from experiments.harness.plots import Plot, Series
from experiments.harness.prose import Prose
from experiments.harness.report import Report, markdown
from experiments.methods.tinymetafed import BATCH
from experiments.online import streams
from simulation.statistics import Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.harness.report import Row
    from experiments.online.result import BatchMemory, Heap, LearnerResult, OnlineResult

PROSE: Final = Prose(Path(__file__).with_name("page.md"))
KILO: Final = 1000
HEAD: Final = ("stream", "learner", "along the stream", "after it", "mega-operations")


def report(result: OnlineResult) -> Report:
    """All that the experiment leaves in its folder."""
    lines = [
        [
            f"{each.scenario.network}, {each.kind}",
            each.name,
            _value(each, each.along),
            _value(each, each.final),
            f"{each.operations / 1e6:.2f}",
        ]
        for each in result.learners
    ]
    return Report(
        title="Online beside batch",
        results={"learners": [_record(result, each) for each in result.learners]},
        tables=_tables(result),
        plots=_plots(result.learners),
        summary=(HEAD, lines),
        findings=_findings(result),
        protocol=_protocol(result),
    )


def _record(result: OnlineResult, each: LearnerResult) -> dict[str, Any]:
    """For results.json."""
    is_loss = each.scenario.metric == "loss"
    record = {
        "network": each.scenario.network,
        "stream": each.kind,
        "learner": each.name,
        "stored": each.learner.stored,
        "rate": each.learner.rate,
        "epochs": each.learner.epochs,
        each.scenario.metric: _estimate(each.along, is_loss=is_loss),
        "final": _estimate(each.final, is_loss=is_loss),
        "operations": each.operations,
        "memory": result.heap(each),
        "curve": [
            [samples, 0, value.mean if is_loss else 1 - value.mean] for samples, value in each.curve
        ],
    }
    if each.kind == "switching":
        record["adapts_in"] = each.adapts_in(each.settled())
    return record


def _estimate(error: Estimate, *, is_loss: bool) -> dict[str, float]:
    return {"mean": error.mean if is_loss else 1 - error.mean, "ci95": error.ci95}


def _tables(result: OnlineResult) -> dict[str, list[Row]]:
    runs: list[Row] = []
    curves: list[Row] = []
    search: list[Row] = []
    for each in result.learners:
        name: Row = {
            "network": each.scenario.network,
            "stream": each.kind,
            "learner": each.name,
        }
        runs += [
            {**name, "seed": seed, "error": run.along, "final": run.final}
            for seed, run in enumerate(each.runs)
        ]
        curves += [
            {**name, "samples": samples, "error": error.mean, "ci95": error.ci95}
            for samples, error in each.curve
        ]
        search += [{**name, **asdict(candidate)} for candidate in each.candidates]
    memory = [_memory_row(each) for each in result.memory]
    return {"runs": runs, "curves": curves, "search": search, "memory": memory}


def _memory_row(memory: BatchMemory) -> Row:
    row: Row = {"network": memory.network, "stored": memory.stored}
    if memory.heap is None:
        return row | {"missing": memory.missing or ""}
    return row | asdict(memory.heap)


def _value(each: LearnerResult, error: Estimate) -> str:
    """A loss, or an accuracy."""
    if each.scenario.metric == "loss":
        return error.text()
    return f"{100 * (1 - error.mean):.1f} % ± {100 * error.ci95:.1f}"


def _plots(learners: Sequence[LearnerResult]) -> list[Plot]:
    """The error, or the accuracy, along each kind of stream."""
    groups: dict[tuple[str, str], list[LearnerResult]] = {}
    for each in learners:
        groups.setdefault((each.scenario.network, each.kind), []).append(each)
    return [
        Plot(
            name=f"{network}-{kind}",
            title=f"{network}, {kind}: each sample tested, then learned",
            x="samples seen",
            y=some[0].scenario.metric,
            series=[_series(each) for each in some],
            log_y=some[0].scenario.metric == "loss",
        )
        for (network, kind), some in groups.items()
    ]


def _series(each: LearnerResult) -> Series:
    curve = each.curve
    values = [error.mean for _, error in curve]
    if each.scenario.metric == "accuracy":
        values = [1 - value for value in values]
    # Of two seeds an interval says nothing and hides all curves.
    widths = [error.ci95 for _, error in curve] if len(each.runs) > 2 else None
    return Series(name=each.name, x=[samples for samples, _ in curve], y=values, ci95=widths)


def _findings(result: OnlineResult) -> str:
    parts = [PROSE.fill("question")]
    for network in result.efforts:
        some = [each for each in result.learners if each.scenario.network == network]
        parts.append(f"## {network.capitalize()}")
        kinds = dict.fromkeys(each.kind for each in some)
        parts += [_beside([each for each in some if each.kind == kind]) for kind in kinds]
        parts.append(_switches([each for each in some if each.kind == "switching"]))
    parts.append(_memory(result.memory))
    return "\n\n".join(parts)


def _beside(some: Sequence[LearnerResult]) -> str:
    """Online beside those that take as many operations, and those that may take more."""
    shipped = next(each for each in some if not each.method.is_searched)
    ours = next(each for each in some if each.method.stored == 1 and each.method.is_searched)
    batches = [each for each in some if each.method.stored > 1]
    lines = [
        [
            batch.name,
            _ratio(shipped.alongs, batch.alongs),
            _ratio(ours.alongs, batch.alongs),
            _ratio(ours.finals, batch.finals),
            f"{batch.operations / ours.operations:.1f}",
        ]
        for batch in batches
    ]
    best = min(batches, key=lambda batch: batch.along.mean)
    last = min(batches, key=lambda batch: batch.final.mean)
    head = ["learner", "online to its", "with searched rate", "after the stream", "its operations"]
    return PROSE.fill(
        "beside",
        kind=ours.kind.capitalize(),
        ours=_value(ours, ours.along),
        shipped=_value(shipped, shipped.along),
        best=best.name,
        best_value=_value(best, best.along),
        best_operations=f"{best.operations / ours.operations:.1f}",
        ours_final=_value(ours, ours.final),
        last=last.name,
        last_value=_value(last, last.final),
        table=markdown(head, lines),
    )


def _ratio(ours: Sequence[float], its: Sequence[float]) -> str:
    """Of each seed's errors: both learners meet the same streams."""
    return Estimate.of([mine / other for mine, other in zip(ours, its, strict=True)]).text(".2f")


def _switches(some: Sequence[LearnerResult]) -> str:
    """How soon each is near its own level again, and near the best one."""
    least = min(each.settled() for each in some)
    lines = [
        [
            each.name,
            f"{each.settled():.3f}",
            _samples(each.adapts_in(each.settled())),
            _samples(each.adapts_in(least)),
        ]
        for each in some
    ]
    head = ["learner", "error when settled", "samples to 1.1 x its own", "to 1.1 x the least"]
    return PROSE.fill("switches", table=markdown(head, lines))


def _samples(count: int | None) -> str:
    return f"not in {streams.EVERY}" if count is None else str(count)


def _memory(memory: Sequence[BatchMemory]) -> str:
    heaps = [(each, each.heap) for each in memory if each.heap is not None]
    missing = next((each.missing for each in memory if each.missing is not None), None)
    if missing is not None:
        return PROSE.fill("no-memory", missing=missing)
    head = ["network", "stored", "online, KB", "samples, KB", "with gradient, KB", "fits"]
    lines = [[each.network, str(each.stored), *_heap(heap)] for each, heap in heaps]
    free = heaps[0][1].free
    return PROSE.fill("memory", free=f"{free / KILO:.1f}", table=markdown(head, lines))


def _heap(heap: Heap) -> list[str]:
    sizes = [
        "no room" if size is None else f"{size / KILO:.1f}" for size in (heap.samples, heap.arrays)
    ]
    return [f"{heap.online / KILO:.1f}", *sizes, "yes" if heap.fits else "no"]


def _protocol(result: OnlineResult) -> str:
    """All that somebody needs to know who wants to repeat it, or to doubt it."""
    fleets = [
        f"{name}: {effort.rounds:,} rounds, then {effort.boards} boards on a stream each"
        for name, effort in result.efforts.items()
    ]
    settings = [
        [
            f"{each.scenario.network}, {each.kind}",
            each.name,
            f"{each.learner.rate:g}",
            str(each.learner.epochs),
        ]
        for each in result.learners
    ]
    ends = [
        f"{each.name} ({each.scenario.network}, {each.kind}): {what}"
        for each in result.learners
        for what in _ends(each)
    ]
    return PROSE.fill(
        "protocol",
        fleets="; ".join(fleets),
        length=str(streams.LENGTH),
        every=str(streams.EVERY),
        batch=str(BATCH),
        candidates=str(max(len(each.candidates) for each in result.learners)),
        ends="; ".join(ends) or "nothing",
        test_samples=str(streams.TEST_SAMPLES),
        settings=markdown(["settings", "learner", "rate", "epochs"], settings),
    )


def _ends(each: LearnerResult) -> list[str]:
    """Which of the settings found are the least or the most of the grid."""
    rate, epochs = each.learner.rate, each.learner.epochs
    rates = sorted({candidate.rate for candidate in each.candidates})
    counts = sorted({candidate.epochs for candidate in each.candidates})
    ends = []
    if len(rates) > 1 and rate in {rates[0], rates[-1]}:
        ends.append(f"rate {rate:g}")
    if len(counts) > 1 and epochs in {counts[0], counts[-1]}:
        ends.append(f"{epochs} epochs")
    return ends
