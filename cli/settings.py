"""The settings of commands to a running fleet."""

from pathlib import Path

from pydantic import ConfigDict, Field

from protocol.topics import NAME
from runtime.settings import Connection


class OperatorSettings(Connection):
    """What an operator's commands need; of the aggregator's file they take what they know."""

    model_config = ConfigDict(extra="ignore")

    fleet: str | None = Field(
        default=None, pattern=f"^{NAME.pattern}$", description="The fleet's name."
    )
    spec: Path | None = Field(default=None, description="The fleet's spec, which names it.")
    state: Path = Field(
        default=Path("state"), description="The aggregator's folder that holds the journal."
    )
