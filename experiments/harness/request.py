"""What an experiment is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Request:
    """What is wanted of an experiment."""

    data: Mapping[str, Path]
    """Where data sets lie, by the name of the spec that learns from them."""
    seeds: int
    quick: bool
    """Whether to do less of all, for a first look."""
