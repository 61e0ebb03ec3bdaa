"""Every setting of the aggregator. :mod:`runtime.settings` says where they come from."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from runtime.settings import Address, Connection, parse_listener


class Settings(Connection):
    """The aggregator's settings."""

    spec: Path = Field(description="The fleet's spec, such as specs/sine.toml.")
    state: Path = Field(
        default=Path("state"),
        description="Folder that holds the journal; made if it is not there.",
    )
    keep_rounds: int = Field(
        default=100, ge=1, description="Rounds whose updates the journal keeps."
    )
    keep_versions: int = Field(
        default=1000, ge=1, description="Versions of the model whose weights the journal keeps."
    )
    exit_when_done: bool = Field(
        default=False,
        description="Stop after the last round, instead of serving the model to late boards.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level of what is logged on stderr."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="Logs for people, text, or for machines, json."
    )
    metrics: Annotated[Address | None, BeforeValidator(parse_listener)] = Field(
        default=None,
        description="Where /metrics, /health and /ready are served: HOST:PORT. Without, nowhere.",
    )
