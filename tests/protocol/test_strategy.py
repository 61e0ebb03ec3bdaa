"""A spec's strategy: what it may say, and what is refused because it could not work."""

import pytest

from localfleet.processes import PROJECT
from protocol.errors import SpecError
from protocol.spec.rounds import Rounds
from protocol.spec.spec import Spec

SINE = (PROJECT / "specs" / "sine.toml").read_text(encoding="utf-8")
TEXT = SINE.partition("\n[rounds.optimizer]")[0] + "\n"
"""The spec of sines without a strategy of its own."""
LINES = TEXT.count("\n")


def parsed(more: str, cohort: int = 8) -> Rounds:
    return Spec.from_toml(TEXT.replace("cohort = 8", f"cohort = {cohort}") + more, "sine").rounds


def test_without_a_word_it_is_the_papers_rule() -> None:
    rounds = parsed("")
    assert (rounds.combine.rule, rounds.optimizer.rule, rounds.privacy) == ("mean", "step", None)
    assert rounds.clip is None


def test_a_strategy_is_read() -> None:
    rounds = parsed(
        """
        [rounds.combine]
        rule = "multi_krum"
        byzantine = 1
        keep = 6
        clip_norm = 2.5
        [rounds.optimizer]
        rule = "yogi"
        beta1 = 0.5
        tau = 0.01
        """
    )
    combine, optimizer = rounds.combine, rounds.optimizer
    assert (combine.rule, combine.byzantine, combine.keep) == ("multi_krum", 1, 6)
    assert rounds.clip == 2.5
    assert (optimizer.rule, optimizer.beta1, optimizer.beta2) == ("yogi", 0.5, 0.99)
    assert optimizer.tau == 0.01


def test_privacy_clips_as_it_says() -> None:
    privacy = "[rounds.privacy]\nclip = 0.5\nnoise_multiplier = 1.5\ndelta = 1e-5"
    assert parsed(privacy).clip == 0.5


@pytest.mark.parametrize(
    ("settings", "line", "reason"),
    [
        # What a rule needs, and what it does not have.
        ('combine]\nrule = "medain"', 2, "combine.rule: Input should be 'mean', 'count'"),
        ('combine]\nrule = "trimmed_mean"', 1, "combine: trimmed_mean needs trim"),
        ('combine]\nrule = "median"', 1, "combine: median needs byzantine"),
        ('combine]\nrule = "multi_krum"\nbyzantine = 1', 1, "combine: multi_krum needs keep"),
        ('combine]\nrule = "krum"\ntrim = 1', 1, "trim is a setting of trimmed_mean, not of krum"),
        ("combine]\ntrim = 1", 1, "trim is a setting of trimmed_mean, not of mean"),
        ("combine]\nbyzantine = 1", 1, "a setting of krum and median and multi_krum, not of mean"),
        ("combine]\nkept = 1", 2, "combine.kept: is not a setting of a spec"),
        ("combine]\nclip_norm = 0.0", 2, "combine.clip_norm: Input should be greater than"),
        ('optimizer]\nrule = "sgd"', 2, "optimizer.rule: Input should be 'step', 'avgm'"),
        ("optimizer]\nmomentum = 0.5", 1, "momentum is a setting of avgm, not of step"),
        ('optimizer]\nrule = "adagrad"\nbeta2 = 0.5', 1, "of adam and yogi, not of adagrad"),
        ('optimizer]\nrule = "adam"\nbeta1 = 1.0', 3, "optimizer.beta1: Input should be less than"),
        ('optimizer]\nrule = "adam"\ntau = 0.0', 3, "optimizer.tau: Input should be greater than"),
        ("privacy]\nclip = 1.0\ndelta = 1e-5", 1, "privacy.noise_multiplier: is missing"),
        ("privacy]\ndelta = 1.0", 2, "privacy.delta: Input should be less than 1"),
    ],
)
def test_a_wrong_setting_is_named_with_its_line(settings: str, line: int, reason: str) -> None:
    with pytest.raises(SpecError) as refused:
        parsed(f"[rounds.{settings}")
    told = str(refused.value).splitlines()
    assert any(one.startswith(f"sine:{LINES + line}:") and reason in one for one in told), told


@pytest.mark.parametrize("quorum", [False, True])
@pytest.mark.parametrize(
    ("settings", "least"),
    [
        ('rule = "median"\nbyzantine = 1', 3),
        ('rule = "median"\nbyzantine = 3', 7),
        ('rule = "trimmed_mean"\ntrim = 2', 5),
        ('rule = "krum"\nbyzantine = 1', 5),
        ('rule = "krum"\nbyzantine = 3', 9),
        ('rule = "multi_krum"\nbyzantine = 1\nkeep = 2', 5),
        ('rule = "multi_krum"\nbyzantine = 1\nkeep = 7', 8),
    ],
)
def test_a_round_must_close_with_enough_updates(settings: str, least: int, *, quorum: bool) -> None:
    """By its quorum, where there is one: a round does not wait for more."""
    more = f"\n[rounds.combine]\n{settings}"

    def closing(count: int) -> Rounds:
        return parsed(f"quorum = {count}{more}", 20) if quorum else parsed(more, count)

    assert closing(least).combine.least == least
    with pytest.raises(SpecError, match=f"needs {least} updates, and a round closes with"):
        closing(least - 1)


@pytest.mark.parametrize(
    "settings",
    [
        'rule = "median"\nbyzantine = 1',
        'rule = "trimmed_mean"\ntrim = 1',
        'rule = "krum"\nbyzantine = 1',
        'rule = "multi_krum"\nbyzantine = 1\nkeep = 2',
    ],
)
def test_one_board_in_a_round_has_none_to_be_compared_with(settings: str) -> None:
    with pytest.raises(SpecError, match="compares updates, and a round closes with one"):
        parsed(f"[rounds.combine]\n{settings}", 1)


@pytest.mark.parametrize(
    "settings",
    [
        'combine]\nrule = "count"',
        "combine]\nclip_norm = 1.0",
        'optimizer]\nrule = "avgm"',
        'optimizer]\nrule = "yogi"',
        "privacy]\nclip = 1.0\nnoise_multiplier = 1.0\ndelta = 0.1",
    ],
)
def test_what_compares_nothing_also_serves_one_board_in_a_round(settings: str) -> None:
    parsed(f"[rounds.{settings}", 1)


def test_krum_compares_no_more_than_memory_allows() -> None:
    krum = '[rounds.combine]\nrule = "krum"\nbyzantine = 1'
    parsed(krum, 2000)
    with pytest.raises(SpecError, match="compares all pairs of updates: cohort 2001 is above 2000"):
        parsed(krum, 2001)


@pytest.mark.parametrize(
    "settings", ['rule = "count"', "clip_norm = 1.0", 'rule = "median"\nbyzantine = 1']
)
def test_privacy_is_for_a_mean_that_it_clips_itself(settings: str) -> None:
    privacy = "[rounds.privacy]\nclip = 1.0\nnoise_multiplier = 1.0\ndelta = 1e-5"
    with pytest.raises(SpecError, match="take rule 'mean' without clip_norm"):
        parsed(f"{privacy}\n[rounds.combine]\n{settings}")


def test_a_spec_written_in_full_is_read_again() -> None:
    rounds = parsed('[rounds.optimizer]\nrule = "adam"\ntau = 0.5')
    assert Rounds.model_validate(rounds.model_dump()) == rounds


@pytest.mark.parametrize(
    "settings",
    [
        '[rounds.combine]\nrule = "median"\nbyzantine = 1',
        "[rounds.privacy]\nclip = 1.0\nnoise_multiplier = 1.0\ndelta = 1e-5",
    ],
)
def test_what_takes_one_update_of_a_board_is_refused_where_there_may_be_two(settings: str) -> None:
    buffered = TEXT.replace("cohort = 8", 'cohort = 8\nquorum = 4\nmode = "buffered"')
    assert Spec.from_toml(buffered).rounds.oldest == 8
    with pytest.raises(SpecError, match="a buffered round may hold two: take mode"):
        Spec.from_toml(buffered + settings)
