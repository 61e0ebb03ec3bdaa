"""What pydantic found wrong, in words."""

from pydantic_core import ErrorDetails


def reason_of(problem: ErrorDetails) -> str:
    """Why a value is refused, without the name that pydantic gives a ValueError of ours."""
    return problem["msg"].removeprefix("Value error, ")
