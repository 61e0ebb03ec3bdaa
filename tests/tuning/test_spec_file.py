"""A spec's file gets other values, and keeps its comments and its layout."""

import re

import pytest
import tomlkit

from localfleet.processes import PROJECT
from protocol.spec.spec import Spec
from protocol.spec.strategy import Optimizer
from tuning.errors import TuningError
from tuning.space import Values, applied, values_of
from tuning.spec_file import rewritten

SINE = PROJECT / "specs" / "sine.toml"


def test_a_file_keeps_its_comments_and_its_columns() -> None:
    text = SINE.read_text()
    values = values_of(Spec.from_toml(text)) | {"percent": 2.5, "local": "1,2", "support": 40}
    new = rewritten(text, values)
    assert values_of(Spec.from_toml(new)) == values
    assert re.findall("#.*", new) == re.findall("#.*", text)
    assert "support = 40            # samples that rebuild" in new
    back = rewritten(new, values_of(Spec.from_toml(text)))
    assert Spec.from_toml(back) == Spec.from_toml(text)


@pytest.mark.parametrize(
    ("name", "rule"), [("sine", "step"), ("keywords", "adam"), ("omniglot", "adam")]
)
def test_a_file_gets_another_optimizer_without_the_settings_of_the_old(
    name: str, rule: str
) -> None:
    text = (PROJECT / "specs" / f"{name}.toml").read_text()
    values = values_of(Spec.from_toml(text)) | {"optimizer": rule, "step_max": 0.5}
    new = Spec.from_toml(rewritten(text, values))
    assert values_of(new) == values
    assert new.rounds.optimizer == Optimizer.model_validate({"rule": rule})


def inline(table: str) -> str:
    """The values under a table's header, as they stand between braces."""
    return ", ".join(re.findall(r"^\w+ = [^#\n]*[^#\s]", table, re.MULTILINE))


def layouts() -> dict[str, str]:
    """The shipped spec in other layouts that TOML allows."""
    text = SINE.read_text()
    optimizer = text[text.index("[rounds.optimizer]") :]
    rest = text.removesuffix(optimizer)
    training = rest[rest.index("[training]") : rest.index("[rounds]")]
    rounds = rest[rest.index("[rounds]") :]
    before = rest.removesuffix(rounds)
    dotted = "".join(f"optimizer.{pair}\n" for pair in inline(optimizer).split(", "))
    within = f"rounds = {{ {inline(rounds)}, optimizer = {{ {inline(optimizer)} }} }}\n"
    return {
        "a quoted name": text.replace("percent = 10 ", '"percent" = 10 '),
        "tables between braces": within
        + f"training = {{ {inline(training)} }}  # all of it\n"
        + before.removesuffix(training),
        "no optimizer": f"rounds = {{ {inline(rounds)} }}\n{before}",
        "parts of a table apart": f"{before.removesuffix(training)}{optimizer}\n{training}{rounds}",
        "dotted names": f"{before}{rounds}{dotted}",
        "lines of another system": text.replace("\n", "\r\n"),
        "no end of the last line": text.rstrip(),
    }


@pytest.mark.parametrize("layout", layouts())
@pytest.mark.parametrize(
    "changed",
    [
        {"percent": 5.0, "local": "1,2"},
        {"optimizer": "step", "step_max": 2.0, "percent_down": 3.0},
        {"optimizer": "avgm", "step_max": 0.4},
    ],
)
def test_a_file_of_another_layout_is_rewritten_as_well(layout: str, changed: Values) -> None:
    text = layouts()[layout]
    given = Spec.from_toml(text)
    values = values_of(given) | changed
    new = rewritten(text, values)
    assert Spec.from_toml(new) == applied(given, values)
    assert re.findall("#.*", new) == re.findall("#.*", text)


def test_a_file_that_cannot_be_rewritten_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    text = SINE.read_text()
    monkeypatch.setattr(tomlkit, "dumps", lambda _: text)  # As if nothing had been found.
    with pytest.raises(TuningError, match="a line of its own"):
        rewritten(text, values_of(Spec.from_toml(text)) | {"percent": 5.0})
