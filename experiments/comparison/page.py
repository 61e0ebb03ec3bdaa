"""The page and the pictures of a comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from experiments.harness.plots import Plot, Series
from experiments.harness.report import markdown
from experiments.methods.catalogue import METHODS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.comparison.run import Compared, Comparison, Effort, Point

COSTS: Final = ("bytes_up", "bytes_down", "operations")
OURS: Final = "tinymetafed"
MEGA: Final = 1e6


def summary(compared: Sequence[Compared]) -> tuple[list[str], list[list[str]]]:
    """A line a method."""
    metric = compared[0].scenario.metric
    head = ["method", metric, "MB up", "MB down", "giga-operations", "arrays on a board, KB"]
    return head, [
        [
            each.name,
            value_text(each),
            *(f"{each.mean(name) / MEGA:.2f}" for name in ("bytes_up", "bytes_down")),
            f"{each.mean('operations') / 1e9:.2f}",
            arrays(each),
        ]
        for each in compared
    ]


def value_text(each: Compared) -> str:
    """With its interval."""
    if each.scenario.metric == "loss":
        return each.value.text()
    return f"{100 * each.value.mean:.1f} % ± {100 * each.value.ci95:.1f}"


def arrays(each: Compared) -> str:
    """Bytes that a board's arrays take."""
    needed = METHODS[each.method].arrays
    return "-" if needed is None else f"{needed(each.scenario.spec, each.settings) / 1000:.0f}"


def plots(compared: Sequence[Compared]) -> list[Plot]:
    """The value over rounds, bytes and operations; and of variants, over rounds."""
    main = [each for each in compared if "/" not in each.name]
    metric = compared[0].scenario.metric
    made = [
        _plot(main, "rounds", f"{metric} on held-out tasks over rounds", "rounds", at=0),
        _plot(main, "bytes", f"{metric} on held-out tasks over bytes", "MB up and down", at=1),
        _plot(
            *(main, "operations", f"{metric} on held-out tasks over operations"),
            *("giga-operations (multiply-accumulates) on all boards",),
            at=2,
        ),
        _plot(
            [each for each in _first(compared) if each.name.split("/")[0] == OURS],
            *("parts", f"{metric}, each part taken out", "rounds"),
            at=0,
        ),
    ]
    if again := compared[len(_first(compared)) :]:
        suffix = again[0].name.rpartition("/")[2]
        made.append(_plot(again, suffix, f"{metric}, {suffix}, over bytes", "MB", at=1))
    return made


def _first(compared: Sequence[Compared]) -> list[Compared]:
    """Those that are about the task as it was played first."""
    return [each for each in compared if each.scenario == compared[0].scenario]


def _plot(compared: Sequence[Compared], name: str, title: str, x: str, *, at: int) -> Plot:
    """Of what takes no rounds only the last value is known: a line right through."""
    series = []
    ends = [each.curve for each in compared if each.mean("rounds")]
    reach = [
        min(_places(curve[0])[at] for curve in ends),
        max(_places(curve[-1])[at] for curve in ends),
    ]
    for each in compared:
        curve = each.curve
        along = [_places(point)[at] for point in curve]
        values, widths = [p.value.mean for p in curve], [p.value.ci95 for p in curve]
        if not each.mean("rounds") or not max(along):
            along, values, widths = reach, [values[-1]] * 2, [widths[-1]] * 2
        series.append(Series(each.name, along, values, widths))
    metric = compared[0].scenario.metric
    return Plot(name, title, x, metric, series, log_x=at > 0, log_y=metric == "loss")


def _places(point: Point) -> tuple[float, float, float]:
    return point.rounds, point.bytes / MEGA, point.operations / 1e9


def findings(compared: Sequence[Compared]) -> str:
    """How TinyMetaFed stands to each of the others."""
    parts = []
    for scenario in dict.fromkeys(each.scenario for each in compared):
        some = [each for each in compared if each.scenario == scenario]
        ours = some[0]
        lines = [_against(ours, each) for each in some[1:]]
        title = f"## Beside {ours.name}"
        parts.append(f"{title}\n\n{markdown(_AGAINST, lines)}")
    parts.append(
        "The second column is what TinyMetaFed's last value is to the method's: of losses the "
        "ratio, of accuracies the difference in points. The third is the share of the method's "
        "bytes, up and down together, with which TinyMetaFed first was as good as the method was "
        "at its end, by the points of the curve. The fourth is where the method's curve was when "
        "it had sent and received as many bytes as TinyMetaFed in all."
    )
    return "\n\n".join(parts)


_AGAINST: Final = ("method", "ours to its", "its value reached with", "its value at our bytes")


def _against(ours: Compared, other: Compared) -> list[str]:
    mine, its = ours.value.mean, other.value.mean
    is_loss = ours.scenario.metric == "loss"
    ratio = f"{mine / its:.2f}" if is_loss else f"{100 * (mine - its):+.1f} points"
    total = other.mean("bytes_up") + other.mean("bytes_down")
    reached = ours.first(its)
    if reached is None:
        share = "not reached"
    elif not total:
        share = f"{reached.bytes / MEGA:.2f} MB; it sends none"
    else:
        share = f"{100 * reached.bytes / total:.1f} %"
    return [other.name, ratio, share, _with_bytes(ours, other)]


def _with_bytes(ours: Compared, other: Compared) -> str:
    """The other's value with as many bytes as ours took in all."""
    budget = ours.mean("bytes_up") + ours.mean("bytes_down")
    within = [point for point in other.curve if point.bytes <= budget]
    if not within:
        return "none yet"
    mean = within[-1].value.mean
    return f"{mean:.3f}" if ours.scenario.metric == "loss" else f"{100 * mean:.1f} %"


def protocol(
    comparison: Comparison,
    effort: Effort,
    seeds: int,
    compared: Sequence[Compared],
) -> str:
    """All that somebody needs to know who wants to make it again, or to doubt it."""
    spec = compared[0].scenario.spec
    methods = [[name, METHODS[name].about] for name in dict.fromkeys(c.method for c in compared)]
    names = list(dict.fromkeys(name for each in compared for name in each.settings))
    settings = [
        [each.name, *(f"{each.settings[n]:g}" if n in each.settings else "" for n in names)]
        for each in compared
    ]
    held_out = {
        "sine": "sines drawn anew",
        "omniglot": "characters that no board learns from, a fifth of the data set",
        "keywords": "homes of four speakers whom no board learns from, a fifth of all",
    }[comparison.network]
    rule = spec.rounds.optimizer.rule
    server = (
        "**The server** follows the mean change, times a step that of TinyMetaFed falls by the "
        "paper's cosine."
    )
    if rule != "step":
        server = (
            "**The server** of TinyMetaFed follows the mean change by the optimizer of its spec, "
            f"`{rule}` (`docs/strategies.md`), whose step falls by the paper's cosine. The paper's "
            "server takes the plain step: that is `tinymetafed/plain-step`. "
            "`tinyreptile/optimizer` is a rival with the optimizer of our spec. All others follow "
            "the mean change, times a step where they have one."
        )
    runs = ""
    if effort.trial_runs > 1:
        runs = f", played {effort.trial_runs} times with other seeds and judged by the mean"
    shots = ""
    if again := compared[len(_first(compared)) :]:
        other = again[0].scenario.spec
        shots = (
            f" `/{again[0].name.rpartition('/')[2]}` are the same methods once more with "
            f"{other.rounds.count:,} rounds and {other.training.support} support samples; their "
            "settings were searched anew"
            + (", in trials of as many rounds." if other.rounds.count > effort.rounds else ".")
        )
    return f"""The network and the tasks are those of `specs/{comparison.network}.toml`: \
{spec.global_count:,} global parameters and \
{sum(layer.parameters for layer in spec.layers if layer.local):,} local ones. Every method plays \
{effort.rounds:,} rounds with {spec.rounds.cohort} boards, and a board has \
{spec.training.support} support and {spec.training.query} query samples of another task in each \
round. All methods see the same samples of the same boards in the same rounds of a seed.{shots}

**Judged** by {effort.tested:,} held-out tasks ({held_out}), the same for every method and seed: a \
board starts from the model, learns from the support samples as its method says, and is asked the \
query samples. Points of a curve are {effort.asked:,} of these tasks. Numbers are means \
over {seeds} seeds with 95 % intervals (Student's t), which tell how runs differ; the tasks of the \
test are always the same.

**Settings** were searched for every method with the same effort: {effort.trials} trials of \
{effort.trial_rounds} rounds each{runs}, the first with what its authors or the spec take, the \
others drawn by Optuna's tree-structured Parzen estimator; judged by {effort.judged} held-out \
tasks that are not those of the test and that no board of a trial learned from. What was found is \
in the last table, all trials are in `trials.csv`.

**Arithmetic.** TinyMetaFed computes as boards do, in fixed point, and so do its variants but for \
`no-online`: boards do not know batches. Rivals compute in float64, without any rounding. So did \
all trials of settings.

{server}

**Bytes** are those of whole MQTT packets, of all boards together. Of TinyMetaFed and its \
variants all count: connecting, the first model, announcements, deltas, updates, receipts, \
acknowledgements. Of rivals only the models count, as float32, one packet each, with its \
acknowledgement; of `transfer` the samples, and the model once to each board.

**Operations** are multiply-accumulates of all boards' training: forward, back, and update. What \
`transfer` computes in its one place does not count.

**Arrays on a board** are what training takes besides the program and its connection: of \
TinyMetaFed as `protocol/spec/heap.py` counts them, with update and sample; of rivals weights, \
activations and errors in float32, for batches the gradient, and where samples are gone through \
again, the samples of a round. A board with 264 KB of memory has about 80 KB for them beside \
MicroPython and our client, and perhaps 200 KB beside a program in C.

{markdown(["method", "how it learns"], methods)}

{markdown(["settings found", *names], settings)}"""
