"""Templates of pages: what is joined, what is kept, and that nothing stays unfilled."""

from pathlib import Path

import pytest

from experiments.harness.prose import Prose

TEMPLATE = """\
<!-- section: findings -->
**$network.** It ends
at $value.

- one
- another
in two lines

| a | b |
| --- | --- |

<!-- section: cost -->
It costs $$5.
"""


@pytest.fixture
def prose(tmp_path: Path) -> Prose:
    file = tmp_path / "page.md"
    file.write_text(TEMPLATE, encoding="utf-8")
    return Prose(file)


def test_lines_of_a_paragraph_are_joined_and_lists_and_tables_kept(prose: Prose) -> None:
    assert prose.fill("findings", network="sine", value="0.2") == (
        "**sine.** It ends at 0.2.\n\n- one\n- another in two lines\n\n| a | b |\n| --- | --- |"
    )
    assert prose.fill("cost") == "It costs $5."


def test_a_field_without_a_value_and_an_unknown_section_are_errors(prose: Prose) -> None:
    with pytest.raises(KeyError, match="value"):
        prose.fill("findings", network="sine")
    with pytest.raises(KeyError, match="protocol"):
        prose.fill("protocol")
