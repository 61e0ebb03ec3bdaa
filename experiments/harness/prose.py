"""The prose of an experiment's page: a Markdown file beside it, in sections with named fields."""

from __future__ import annotations

import re
from string import Template
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_SECTION: Final = re.compile(r"^<!-- section: ([a-z-]+) -->\n", re.MULTILINE)
_WRAP: Final = re.compile(r"(?<=\S)\n(?=[^\s|-])")
"""The end of a line within a paragraph; items of a list and lines of a table stay lines."""


class Prose:
    """The sections of a file.

    A section follows a line ``<!-- section: NAME -->``. Its fields are ``$name`` or ``${name}``;
    ``$$`` is a dollar sign. The lines of a paragraph are joined, because fields differ in length.

    Args:
        file: Markdown.
    """

    def __init__(self, file: Path) -> None:
        _, *parts = _SECTION.split(file.read_text(encoding="utf-8"))
        self._sections = {
            name: Template(_WRAP.sub(" ", text.strip()))
            for name, text in zip(parts[::2], parts[1::2], strict=True)
        }

    def fill(self, section: str, **fields: str) -> str:
        """A section with its fields.

        Raises:
            KeyError: the file has no such section, or the section has another field.
        """
        return self._sections[section].substitute(fields)
