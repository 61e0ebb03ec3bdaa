"""The page and the pictures of the experiment `online`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from experiments.harness.plots import Plot, Series
from experiments.harness.report import markdown
from experiments.methods.tinymetafed import BATCH
from experiments.online import streams
from experiments.online.board_memory import Stored
from simulation.statistics import Estimate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from experiments.harness.study import Outcome
    from experiments.online.run import Effort, Followed

KILO: Final = 1000


def value_text(each: Followed, error: Estimate) -> str:
    """A loss, or the share of classes told."""
    if each.scenario.metric == "loss":
        return error.text()
    return f"{100 * (1 - error.mean):.1f} % ± {100 * error.ci95:.1f}"


def summary(followed: Sequence[Followed]) -> tuple[list[str], list[list[str]]]:
    """A line a stream and way of learning."""
    head = ["stream", "learner", "along the stream", "after it", "mega-operations"]
    return head, [
        [
            f"{each.scenario.network}, {each.kind}",
            each.name,
            value_text(each, each.along),
            value_text(each, each.final),
            f"{each.operations / 1e6:.2f}",
        ]
        for each in followed
    ]


def plots(followed: Sequence[Followed]) -> list[Plot]:
    """The error, or the accuracy, along each kind of stream."""
    made: dict[tuple[str, str], list[Followed]] = {}
    for each in followed:
        made.setdefault((each.scenario.network, each.kind), []).append(each)
    return [
        Plot(
            f"{network}-{kind}",
            f"{network}, {kind}: each sample tested, then learned",
            "samples seen",
            some[0].scenario.metric,
            [_series(each) for each in some],
            log_y=some[0].scenario.metric == "loss",
        )
        for (network, kind), some in made.items()
    ]


def _series(each: Followed) -> Series:
    curve = each.curve()
    values = [error.mean for _, error in curve]
    if each.scenario.metric == "accuracy":
        values = [1 - value for value in values]
    # Of two seeds an interval says nothing and hides all curves.
    widths = [error.ci95 for _, error in curve] if len(each.runs) > 2 else None
    return Series(each.name, [samples for samples, _ in curve], values, widths)


def heap(each: Followed, taken: Mapping[Stored, Outcome]) -> int | None:
    """Bytes of heap in use on a board; None where they were not measured, or there is no room."""
    stored = each.learner.stored
    outcome = taken[Stored(each.scenario.network, 8 if stored == 1 else stored)]
    if "online" not in outcome:
        return None
    if stored == 1:
        return int(outcome["online"])
    return None if outcome["taken"] is None else int(outcome["online"] + outcome["taken"])


def findings(followed: Sequence[Followed], taken: Mapping[Stored, Outcome]) -> str:
    """What the runs say."""
    asked = (
        "Asked was: what does it cost a board, and what does it gain, to use each sample once and "
        "store none, instead of storing samples and learning from them in batches?"
    )
    parts = [asked]
    for network in dict.fromkeys(each.scenario.network for each in followed):
        some = [each for each in followed if each.scenario.network == network]
        parts.append(f"## {network.capitalize()}")
        parts += [_beside(some, kind) for kind in dict.fromkeys(each.kind for each in some)]
        parts.append(_switches([each for each in some if each.kind == "switching"]))
    parts.append(_memory(taken))
    return "\n\n".join(parts)


def _beside(some: Sequence[Followed], kind: str) -> str:
    """Online beside those that take as many operations, and those that may take more."""
    ours, *others = [each for each in some if each.kind == kind and each.name != "online"]
    shipped = next(each for each in some if each.kind == kind and each.name == "online")
    lines = [
        [
            other.name,
            _ratio(shipped.alongs, other.alongs),
            _ratio(ours.alongs, other.alongs),
            _ratio(ours.finals, other.finals),
            f"{other.operations / ours.operations:.1f}",
        ]
        for other in others
    ]
    best = min(others, key=lambda other: other.along.mean)
    last = min(others, key=lambda other: other.final.mean)
    head = ["learner", "online to its", "with searched rate", "after the stream", "its operations"]
    return (
        f"**{kind.capitalize()}.** Along the stream, online with a searched rate comes to "
        f"{value_text(ours, ours.along)}, at the spec's rate to "
        f"{value_text(shipped, shipped.along)}; the best batch learner, {best.name}, to "
        f"{value_text(best, best.along)} with {best.operations / ours.operations:.1f} times the "
        f"operations. After it online has {value_text(ours, ours.final)}, and the best of batches, "
        f"{last.name}, {value_text(last, last.final)}. Ratios of errors, a seed's online to its "
        "batch (below 1: online errs less), and of operations, batch to online:\n\n"
        f"{markdown(head, lines)}"
    )


def _ratio(ours: Sequence[float], its: Sequence[float]) -> str:
    """Of each seed's errors: both learners meet the same streams."""
    return Estimate.of([mine / other for mine, other in zip(ours, its, strict=True)]).text(".2f")


def _switches(some: Sequence[Followed]) -> str:
    """How soon each is near its own level again, and near the best one."""
    least = min(each.settled() for each in some)
    lines = [
        [
            each.name,
            f"{each.settled():.3f}",
            *(_samples(each.adapts_in(level)) for level in (each.settled(), least)),
        ]
        for each in some
    ]
    head = ["learner", "error when settled", "samples to 1.1 x its own", "to 1.1 x the least"]
    return (
        "**After a switch.** Settled is the last quarter of a task; of classes, an error is the "
        "share not told. Errors are means over boards, switches, seeds and the last eight samples, "
        f"so that none can be there before the eighth.\n\n{markdown(head, lines)}"
    )


def _samples(count: int | None) -> str:
    return f"not in {streams.EVERY}" if count is None else str(count)


def _memory(taken: Mapping[Stored, Outcome]) -> str:
    missing = next((each["missing"] for each in taken.values() if "missing" in each), None)
    if missing is not None:
        return f"## Memory\n\nNot measured, for there is no emulated board here: {missing}"
    lines = [
        [
            stored.network,
            str(stored.samples),
            f"{outcome['online'] / KILO:.1f}",
            *(
                ["no room", "no room"]
                if outcome["taken"] is None
                else [f"{outcome[what] / KILO:.1f}" for what in ("samples", "taken")]
            ),
            "yes" if outcome["fits"] else "no",
        ]
        for stored, outcome in taken.items()
    ]
    free = next(iter(taken.values()))["free"]
    head = ["network", "stored", "online, KB", "samples, KB", "with gradient, KB", "fits"]
    return (
        "## Memory\n\nMeasured on the emulated Cortex-M0, whose empty heap has "
        f"{free / KILO:.1f} KB. Online is all that a whole client has in use at the end of a "
        "round. What a batch takes comes on top: the stored samples, then with the gradient. "
        "'No room' is a MemoryError of the network alone with these arrays, without a client. "
        "Fits: a whole client played a round in the heap that the arrays leave.\n\n"
        f"{markdown(head, lines)}"
    )


def protocol(followed: Sequence[Followed], efforts: Mapping[str, Effort]) -> str:
    """All that somebody needs to know who wants to make it again, or to doubt it."""
    fleets = "; ".join(
        f"{name}: {effort.rounds:,} rounds, then {effort.boards} boards on a stream each"
        for name, effort in efforts.items()
    )
    settings = [
        [
            f"{each.scenario.network}, {each.kind}",
            each.name,
            f"{each.learner.rate:g}",
            str(each.learner.epochs),
        ]
        for each in followed
    ]
    trials = max(len(each.trials) for each in followed)
    at_end = [
        f"{each.name} ({each.scenario.network}, {each.kind}): {what}"
        for each in followed
        for what in _ends(each)
    ]
    return f"""A fleet learns as its shipped spec says; each seed has its own ({fleets}). Then \
every board follows a stream of {streams.LENGTH} samples alone. Its global layers stay as they \
were published; \
its local layers begin at their seeded start and learn. All learners meet the same streams in a \
seed, of tasks that the fleet did not learn from.

**Streams.** Stationary: one task. Drifting: of sines, amplitude and phase go straight from one \
drawn sine to another; of characters, those of a second task come more and more often in the place \
of the first one's. Switching: another task every {streams.EVERY} samples. A drawing comes again \
where a stream has more samples of a character than there are drawings for it: 15, five more are \
only asked.

**Learners.** Online computes as boards do, in fixed point: each sample is learned from once, as \
it comes. A batch learner stores 8 or 32 samples and computes in float64, without rounding, which \
is to its advantage: when they are full, it goes through them in steps of {BATCH}, each along the \
mean gradient, once or in several epochs in the same order, and forgets them. Without `-epochs` it \
goes through them once, with as many operations as online. A batch of 32 may hold samples from \
before and after a switch; one of 8 does not, for switches come when it is empty.

**Settings** of each learner were searched for each kind of stream with the same effort: a grid of \
{trials} trials of rates, or of rates and epochs, by the error along streams of other tasks, from \
a start of another fleet. `online` has the spec's rate, and no search. All trials are in \
`trials.csv`. Found at an end of its grid, so that what lies beyond may do better: \
{"; ".join(at_end) or "nothing"}.

**Errors.** Each sample is tested before it is learned from (prequential error; Gama, Sebastião \
and Rodrigues, "On evaluating stream learning algorithms", 2013). After the stream {streams.ASKED} \
other samples of its last task are asked. A loss is a squared error. Numbers are means over seeds \
with 95 % intervals (Student's t). Operations are multiply-accumulates of one board's learning \
along a whole stream; tests are not counted.

**Memory** of batches is measured by `localfleet/on_board/batch.py` with the networks of the \
shipped specs and the kernels that ship. Samples are stored with 16 bits a value in one piece, \
which loses nothing, and a class in a byte; the gradient is in words of 32 bits, and as large as \
the larger of the local and the global side, since a round learns both. Streams learn only the \
local side, whose gradient is smaller. Pixels stored in a byte each would take half of the \
samples' room. The last number of stored samples of each network is a round's.

{markdown(["settings", "learner", "rate", "epochs"], settings)}"""


def _ends(each: Followed) -> list[str]:
    """Which of the settings found are the least or the most of what was tried."""
    found = (("rate", each.learner.rate), ("epochs", each.learner.epochs))
    tried = [sorted({trial[at] for trial in each.trials}) for at in (0, 1)]
    return [
        f"{value:g} {what}" if what == "epochs" else f"{what} {value:g}"
        for (what, value), values in zip(found, tried, strict=True)
        if len(values) > 1 and value in (values[0], values[-1])
    ]
