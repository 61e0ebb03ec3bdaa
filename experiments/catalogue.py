"""The experiments by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from experiments.report import Report
    from experiments.study import Study


@dataclass(frozen=True)
class Request:
    """What is asked of an experiment."""

    data: Mapping[str, Path]
    """Where data sets lie, by the name of the spec that learns from them."""
    seeds: int
    quick: bool
    """Whether to do less of all, for a first look."""


@dataclass(frozen=True)
class Experiment:
    """One that can be made."""

    about: str
    """In a line."""
    make: Callable[[Request, Study], Report]
    needs: tuple[str, ...] = ()
    """Data without which there is nothing to do."""
    may: tuple[str, ...] = ()
    """Data with which there is more to do."""


EXPERIMENTS: Final[dict[str, Experiment]] = {}
