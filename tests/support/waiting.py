"""Waiting for what tells nobody that it has happened: a file that grows, a port that opens."""

import time
from collections.abc import Callable
from typing import Final

PATIENCE: Final = 60.0
"""Seconds for what takes a moment on an idle machine: a test may have to share a busy one."""


def wait_until(
    what: str, condition: Callable[[], bool], details: Callable[[], object] = lambda: ""
) -> None:
    """Look again and again until it is so.

    Args:
        what: for the message of a test that waits in vain.
        condition: is asked every few hundredths of a second, and may raise where it cannot come.
        details: told with it.
    """
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends, f"waited in vain for {what}; {details()}"
        time.sleep(0.02)
