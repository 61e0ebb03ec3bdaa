"""What the page of `top-p` shows of the observer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from experiments.harness.plots import Plot, Series
from experiments.harness.prose import Prose

if TYPE_CHECKING:
    from experiments.harness.report import Row
    from experiments.top_p.result import Inference, ObserverResult, Secret, Situation

PROSE: Final = Prose(Path(__file__).with_name("observer.md"))
NETWORKS: Final = ("sine", "omniglot")
WHAT: Final[dict[tuple[Secret, bool], str]] = {
    ("task", False): "share of the sine that is inferred",
    ("drawing", False): "AUC, this drawing or another one of the character",
    ("character", False): "AUC, this character or another board's",
    ("drawing", True): "the same drawing, local layers known",
    ("character", True): "the same character, local layers known",
}
"""By what is inferred, and whether the local layers are known."""
SHOWN: Final = (1.0, 10.0, 100.0)
"""Every P of the text."""


def records(result: ObserverResult) -> list[dict[str, object]]:
    """For results.json."""
    return [
        {**_fields(each), "value": {"mean": each.value.mean, "ci95": each.value.ci95}}
        for each in result.inferences
    ]


def rows(result: ObserverResult) -> list[Row]:
    """For the CSV."""
    return [
        {**_fields(each), "value": each.value.mean, "ci95": each.value.ci95}
        for each in result.inferences
    ]


def _fields(inference: Inference) -> Row:
    return {
        "network": inference.situation.network,
        "partition": inference.situation.partition,
        "rounds": inference.situation.rounds,
        "percent": inference.percent,
        "value_bits": inference.value_bits,
        "secret": inference.secret,
        "local_known": inference.local_known,
    }


def _name(situation: Situation) -> str:
    return f"{situation.partition}/round {situation.rounds}"


def plots(result: ObserverResult) -> list[Plot]:
    """Each secret by P."""
    pictures: list[tuple[str, Secret]] = [
        ("sine", "task"),
        ("omniglot", "character"),
        ("omniglot", "drawing"),
    ]
    made = []
    for network, secret in pictures:
        series = []
        for situation in result.situations:
            if situation.network == network:
                values = result.select(situation, secret)
                series.append(
                    Series(
                        name=_name(situation),
                        x=list(values),
                        y=[value.mean for value in values.values()],
                        ci95=[value.ci95 for value in values.values()],
                    )
                )
        if series:
            plot = Plot(
                name=f"observer-{secret}",
                title=f"{network}: what an observer learns, by P",
                x="P, % of shared parameters",
                y=WHAT[secret, False],
                series=series,
                log_x=True,
            )
            made.append(plot)
    return made


def findings(result: ObserverResult) -> str:
    """What leaks, and what keeps it."""
    lines = []
    for network in NETWORKS:
        situations = [each for each in result.situations if each.network == network]
        for (secret, local_known), what in WHAT.items():
            for situation in situations:
                values = result.select(situation, secret, local_known=local_known)
                texts = [f"P = {p:g}: {values[p].text()}" for p in SHOWN if p in values]
                if texts:
                    line = PROSE.fill(
                        "line",
                        situation=f"{network}/{_name(situation)}",
                        what=what,
                        values="; ".join(texts),
                    )
                    lines.append(line)
    parts = [PROSE.fill("introduction"), "\n".join(lines)]
    parts.append(PROSE.fill("widths", spread=f"{_spread(result):.3f}"))
    parts += [_partition(result, network) for network in NETWORKS if network in result.boards]
    return "\n\n".join([*parts, PROSE.fill("limits")])


def _spread(result: ObserverResult) -> float:
    """The most that values of 4 bits differ from those of 8."""
    return max(
        abs(value.mean - eight[percent].mean)
        for situation in result.situations
        for secret, local_known in WHAT
        for eight in [result.select(situation, secret, local_known=local_known)]
        for percent, value in result.select(
            situation, secret, local_known=local_known, value_bits=4
        ).items()
    )


def _partition(result: ObserverResult, network: str) -> str:
    """What the spec's partition does in the middle of a run."""
    secret: Secret = "task" if network == "sine" else "character"
    later = {
        situation.partition: result.select(situation, secret)
        for situation in result.situations
        if situation.network == network and situation.rounds
    }
    return PROSE.fill(
        "partition",
        network=network,
        what=WHAT[secret, False],
        full_all=later["full"][100.0].text(),
        partial_all=later["partial"][100.0].text(),
        partial_ten=later["partial"][10.0].text(),
        full_ten=later["full"][10.0].text(),
    )


def protocol(result: ObserverResult) -> str:
    """How the observer was made."""
    characters = ""
    if "omniglot" in result.boards:
        characters = " " + PROSE.fill("characters", boards=str(result.boards["omniglot"]))
    return PROSE.fill(
        "protocol",
        boards=str(result.boards["sine"]),
        seeds=str(result.seeds),
        own=f"{result.own:,}",
        nearest=str(result.nearest),
        characters=characters,
    )
