"""The page and the pictures of the experiment `energy`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from experiments.energy.power import CHIPS, CLAIMED, ESP32, LINK, LINK_SOURCES, parts, saved, total
from experiments.harness.plots import Plot, Series
from experiments.harness.report import markdown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from experiments.comparison.run import Effort, Point
    from experiments.energy.power import Chip, Link
    from experiments.energy.run import Played

STAYS: Final = replace(LINK, connect=0.0)
"""A board that stays connected; what it takes to stay so is not counted."""
LINKS: Final = {"each round": LINK, "stays connected": STAYS}
HEAD: Final = ("beside", "board", "connects", "bytes saved", "time saved", "energy saved")


def networks(played: Sequence[Played]) -> dict[str, list[Played]]:
    """What was played, by network, TinyMetaFed first."""
    found: dict[str, list[Played]] = {}
    for each in played:
        found.setdefault(each.scenario.network, []).append(each)
    return found


def target(ours: Played, other: Played) -> float:
    """The worse of both last values, which both have reached."""
    ends = ours.curve[-1].value.mean, other.curve[-1].value.mean
    return max(ends) if ours.scenario.metric == "loss" else min(ends)


def savings(
    ours: tuple[Played, Point], other: tuple[Played, Point], chip: Chip, link: Link
) -> dict[str, float]:
    """Shares of the other's bytes, time and energy that TinyMetaFed does without."""
    mine, its = ours[0].cost(ours[1], chip, link), other[0].cost(other[1], chip, link)
    sent = [point.bytes for _, point in (ours, other)]
    return {
        "bytes": saved(*sent),
        "time": saved(mine.seconds, its.seconds),
        "energy": saved(mine.joules, its.joules),
    }


def summary(played: Sequence[Played]) -> tuple[Sequence[str], list[list[str]]]:
    """What is saved at equal rounds; the claim first."""
    lines = [
        ["*claimed*", "", "", *(f"{CLAIMED[what]:.0%}" for what in ("bytes", "time", "energy"))]
    ]
    for found in networks(played).values():
        ours, *others = found
        for other in others:
            lines += _lines((ours, ours.curve[-1]), (other, other.curve[-1]))
    return HEAD, lines


def _lines(ours: tuple[Played, Point], other: tuple[Played, Point]) -> list[list[str]]:
    name = f"{other[0].scenario.network}: {other[0].method}"
    return [
        [
            name,
            chip.name,
            how,
            *(f"{share:.0%}" for share in savings(ours, other, chip, link).values()),
        ]
        for chip in CHIPS
        for how, link in LINKS.items()
    ]


def findings(played: Sequence[Played]) -> str:
    """What was asked, and what came of it; all numbers from the runs and the model."""
    asked = (
        "All joules and seconds are **modelled**: bytes and operations are from runs of the "
        "simulation, currents and times from the constants below. No board was measured. The "
        "table above is at equal rounds; a share below 0 means that TinyMetaFed takes more."
    )
    text = [asked]
    for network, found in networks(played).items():
        text.append(f"## {network}")
        text.append(_ends(found))
        text.append(_verdict(found))
        text.append(_equal_value(found))
        text.append(_shares(found))
        text.append(_sensitivity(found))
    return "\n\n".join(text)


def _ends(found: Sequence[Played]) -> str:
    """What each came to after all rounds."""
    head = [
        *("method", found[0].scenario.metric, "rounds", "KB up and down a board"),
        *(f"J, {chip.name}, {how}" for chip in CHIPS for how in LINKS),
    ]
    lines = []
    for each in found:
        end, cohort = each.curve[-1], each.scenario.spec.rounds.cohort
        lines.append(
            [
                *(each.method, each.value.text(), str(end.rounds)),
                f"{end.bytes / cohort / 1000:.1f}",
                *(
                    f"{each.cost(end, chip, link).joules:.3g}"
                    for chip in CHIPS
                    for link in LINKS.values()
                ),
            ]
        )
    return f"After all rounds; joules are of one board, modelled.\n\n{markdown(head, lines)}"


def _verdict(found: Sequence[Played]) -> str:
    """The claim beside each, in words."""
    ours, *others = found
    sentences = []
    for other in others:
        pair = (ours, ours.curve[-1]), (other, other.curve[-1])
        for how, link in LINKS.items():
            said = []
            for chip in CHIPS:
                shares = savings(*pair, chip, link)
                kept = [what for what, share in shares.items() if share >= CLAIMED[what]]
                said.append(f"{', '.join(kept) or 'none'} on {chip.name}")
            sentences.append(f"- beside {other.method}, {_connecting(how)}: {'; '.join(said)}")
    claimed = ", ".join(f"{what} {share:.0%}" for what, share in CLAIMED.items())
    return (
        f"Of the three savings claimed ({claimed}) these were reached at equal rounds:\n\n"
        + "\n".join(sentences)
    )


def _connecting(how: str) -> str:
    """Words for a key of LINKS."""
    return "connecting in each round" if how == "each round" else "staying connected"


def _equal_value(found: Sequence[Played]) -> str:
    """Savings where both first reached the worse of the two last values."""
    ours, *others = found
    metric = ours.scenario.metric
    lines = []
    for other in others:
        goal = target(ours, other)
        mine, its = ours.first(goal), other.first(goal)
        if mine is None or its is None:  # Not a number: it diverged.
            lines.append([other.method, *["-"] * (len(HEAD) + 1)])
            continue
        rounds = f"{mine.rounds} to {its.rounds}"
        for _, *line in _lines((ours, mine), (other, its)):
            lines.append([other.method, f"{goal:.3f}", rounds, *line])
    head = [HEAD[0], metric, "rounds, ours to its", *HEAD[1:]]
    chance = 1 / ours.scenario.spec.layers[-1].outputs
    guessed = "" if metric == "loss" else f" Guessing gives {chance:.3f}; there it says nothing."
    return (
        f"At equal {metric}: where each first reached the worse of the two last values, by the "
        f"points of the curve.{guessed}\n\n{markdown(head, lines)}"
    )


def _shares(found: Sequence[Played]) -> str:
    """Where the energy goes."""
    lines = []
    for each in found:
        for chip in CHIPS:
            made = parts(chip, LINK, each.work(each.curve[-1]))
            whole = sum(part.joules for part in made.values())
            lines.append(
                [
                    *(each.method, chip.name),
                    f"{1000 * whole:.1f}",
                    *(f"{part.joules / whole:.1%}" for part in made.values()),
                ]
            )
    head = ["method", "board", "mJ a round", "connecting", "radio", "computing"]
    what = "Where the modelled energy goes of a board that connects in each round"
    return f"{what}:\n\n{markdown(head, lines)}"


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


def _sensitivity(found: Sequence[Played]) -> str:
    """The saved energy under other constants, at equal rounds."""
    ours, *others = found
    mine = ours.work(ours.curve[-1])
    lines = []
    for name, (chips, link) in variations().items():
        shares = [
            saved(
                total(chip, link, mine).joules,
                total(chip, link, other.work(other.curve[-1])).joules,
            )
            for other in others
            for chip in chips
        ]
        lines.append([name, *(f"{share:.0%}" for share in shares)])
    head = ["", *(f"{other.method}, {chip.name}" for other in others for chip in CHIPS)]
    return f"Which constants decide: energy saved at equal rounds.\n\n{markdown(head, lines)}"


def plots(played: Sequence[Played]) -> list[Plot]:
    """What is learned over modelled energy, and what is saved over the time to connect."""
    made = []
    for network, found in networks(played).items():
        metric = found[0].scenario.metric
        for how, link in LINKS.items():
            series = [
                Series(
                    each.method,
                    [each.cost(point, ESP32, link).joules for point in each.curve],
                    [point.value.mean for point in each.curve],
                )
                for each in found
            ]
            name = f"{network}-{how.replace(' ', '-')}"
            title = f"{network}: {metric} over energy, {_connecting(how)}"
            x = f"modelled joules of a board ({ESP32.name})"
            made.append(Plot(name, title, x, metric, series, log_x=True, log_y=metric == "loss"))
        made.append(_over_connecting(network, found))
    return made


def _over_connecting(network: str, found: Sequence[Played]) -> Plot:
    ours, *others = found
    seconds = [0.003 * 10 ** (step / 4) for step in range(13)]
    series = []
    for other in others:
        for chip in CHIPS:
            shares = [
                100 * savings(
                    (ours, ours.curve[-1]),
                    (other, other.curve[-1]),
                    *(chip, replace(LINK, connect=time)),
                )["energy"]
                for time in seconds
            ]  # fmt: skip
            series.append(Series(f"{other.method}, {chip.name}", seconds, shares))
    return Plot(
        *(f"{network}-connecting", f"{network}: energy saved at equal rounds"),
        *("seconds to connect, each round", "modelled energy saved, %"),
        *(series, True),
    )


def protocol(played: Sequence[Played], efforts: Mapping[str, Effort]) -> str:
    """All constants with their sources, and how it was run."""
    text = []
    for network, found in networks(played).items():
        effort, spec = efforts[network], found[0].scenario.spec
        text.append(
            f"**{network}**: network and tasks of `specs/{network}.toml`, {effort.rounds:,} rounds "
            f"of {spec.rounds.cohort} boards, {len(found[0].runs)} seeds; judged by "
            f"{effort.tested:,} held-out tasks. Settings were searched for every method with the "
            f"same effort, {effort.trials} trials of {effort.trial_rounds} rounds on other tasks. "
            + " ".join(
                f"{each.method}: {', '.join(f'{n} {v:g}' for n, v in each.settings.items())}."
                for each in found
            )
        )
    text.append(
        "TinyMetaFed's bytes are those of whole MQTT packets, announcements, receipts and "
        "acknowledgements included, of both variants with its 16-bit values coded; `tinyreptile` "
        "and `fedavg` send the whole model as float32, one packet each way, and nothing else is "
        "counted, which favours them. Computing takes as many instructions of a "
        "multiply-accumulate for all methods, measured with our fixed-point kernels; float32 on a "
        "processor without a floating-point unit takes more, which favours the rivals, too. The "
        "figure is the sine network's; that other networks' layers take as many is an assumption."
        "\n\n"
        "A board's time is that in which it is awake and busy. Waiting for other boards is not in "
        "it: of TinyReptile, which goes from board to board, a round would take about "
        "as many times longer as there are boards. Not in the model either: sensing, sleeping, "
        "staying connected between rounds, lost frames, TLS, writing to flash."
    )
    text += [f"**{chip.name}**\n\n{_sources(chip.sources)}" for chip in CHIPS]
    text.append(f"**Both**\n\n{_sources(LINK_SOURCES)}")
    return "\n\n".join(text)


def _sources(sources: Sequence[tuple[str, str, str]]) -> str:
    return markdown(["what", "value", "source"], sources).replace("---:", "---")
