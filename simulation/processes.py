"""How processes that compute are started."""

from __future__ import annotations

import os
import signal
from multiprocessing import get_context
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.context import SpawnContext


def spawning() -> SpawnContext:
    """Where to start them; each has a core, and shares nothing with this one.

    A fork would take along locks of our threads.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    return get_context("spawn")


def leave_interrupts() -> None:
    """In such a process: Ctrl-C is for the one that waits for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
