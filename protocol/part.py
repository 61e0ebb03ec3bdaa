"""What all tables of a spec have in common: they are strict, and cannot be changed."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A table of a spec."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
