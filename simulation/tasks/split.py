"""Public data sets as their users have them: nothing is downloaded, nothing is kept here.

Whatever is held out for a test is held out by a hash of its name, so that it stays held out
wherever the data lie and however many others come with it.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def held_out(names: Sequence[str], share: float, seed: int = 1) -> NDArray[np.bool_]:
    """Which of these names are kept for the test; shape (names,).

    Args:
        names: of characters, speakers, or whatever must not be in both halves.
        share: about how many of them, from 0 to 1.
        seed: another one holds out others.
    """
    limit = round(share * 2**32)
    digests = [sha256(f"{seed}/{name}".encode()).digest() for name in names]
    return np.array([int.from_bytes(digest[:4], "big") < limit for digest in digests], np.bool_)
