"""The global model: what the fleet has learned, and what of it is published.

The fleet's parameters move by fractions of a weight unit, and a mean over a cohort touches most of
them. So the model is kept finely, and only the largest changes are published after each round; the
remainder waits and is not lost. Boards work on what is published: that *is* the version.
"""

from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from protocol import sparse
from protocol.fixed import WEIGHT_BITS, WEIGHT_MAX, WEIGHT_MIN
from protocol.messages import CHUNK_BYTES, Chunk, Delta
from protocol.spec.spec import Spec
from rounds.optimizers import Optimizer, optimizer_of

PUBLISHED_TYPE: Final = np.dtype("<i2")
FINE_TYPE: Final = np.dtype("<f8")


class GlobalModel:
    """A fleet's global parameters at one version.

    Args:
        spec: the fleet's; its seeded start is version 0.
        optimizer: follows the rounds' changes; by default the one that the spec names.
    """

    def __init__(self, spec: Spec, optimizer: Optimizer | None = None) -> None:
        self.version = 0
        """Grows with each change; no two models of a lineage share it."""
        self.published: NDArray[np.int16] = spec.start().astype(PUBLISHED_TYPE)
        """What boards have, in weight units; shape (parameters,)."""
        self.fine: NDArray[np.float64] = self.published.astype(FINE_TYPE)
        """What the fleet has learned, in weight units; shape (parameters,)."""
        self._spec = spec
        self._optimizer = optimizer_of(spec.rounds) if optimizer is None else optimizer
        self._moments = self._optimizer.start(len(self.fine))

    @classmethod
    def restore(
        cls, spec: Spec, version: int, fine: bytes, published: bytes, optimizer: bytes = b""
    ) -> "GlobalModel":
        """The model whose ``version``, ``fine.tobytes()`` and so on were saved.

        Args:
            spec: the fleet's.
            version: what it was.
            fine: what it was.
            published: what it was.
            optimizer: what ``optimizer_state`` was. That of another rule is of no use: a spec with
                a new optimizer starts it afresh.

        Raises:
            ValueError: they are not of this spec's size.
        """
        model = cls(spec)
        model.version = version
        shape = model.fine.shape
        model.fine = np.frombuffer(fine, FINE_TYPE).reshape(shape).copy()
        model.published = np.frombuffer(published, PUBLISHED_TYPE).reshape(shape).copy()
        rule, _, moments = optimizer.partition(b"\0")
        if rule == spec.rounds.optimizer.rule.encode():
            start = model._moments
            model._moments = np.frombuffer(moments, FINE_TYPE).reshape(start.shape).copy()
        return model

    @property
    def optimizer_state(self) -> bytes:
        """What the optimizer remembers: its rule's name, a zero, its moments."""
        return self._spec.rounds.optimizer.rule.encode() + b"\0" + self._moments.tobytes()

    @property
    def checksum(self) -> int:
        """CRC-32 (ISO 3309) of the published parameters' bytes, little endian."""
        return crc32(self.published.tobytes())

    def copy(self) -> "GlobalModel":
        """The same version, to go on from in another direction."""
        other = GlobalModel(self._spec, self._optimizer)
        other.version = self.version
        other.fine = self.fine.copy()
        other.published = self.published.copy()
        other._moments = self._moments.copy()
        return other

    def replaced(self, published: NDArray[np.int16]) -> "GlobalModel":
        """The next version, with these weights instead; the optimizer starts afresh.

        Args:
            published: in weight units, shape (parameters,).
        """
        other = GlobalModel(self._spec, self._optimizer)
        other.version = self.version + 1
        other.published = published.astype(PUBLISHED_TYPE).reshape(self.published.shape)
        other.fine = other.published.astype(FINE_TYPE)
        return other

    def advance(self, change: NDArray[np.float64] | None, step: float) -> Delta:
        """Follow a round's change, to the next version.

        Args:
            change: what the round came to, in weight units, shape (parameters,). Without one only
                what waits is published, and the optimizer learns nothing.
            step: from 0 up.

        Returns:
            What boards at the version before need to get to this one.
        """
        if change is not None:
            unit = 2.0**-WEIGHT_BITS
            self.fine += self._optimizer.move(change * unit, self._moments, step) / unit
        np.clip(self.fine, WEIGHT_MIN, WEIGHT_MAX, out=self.fine)
        wanted = np.rint(self.fine - self.published).astype(np.int64)
        most = sparse.top_count(len(wanted), self._spec.rounds.percent_down)
        block = sparse.encode(wanted, sparse.top_indices(wanted, most), self._spec.tensors)
        indices, changes = sparse.decode(block, self._spec.tensors)  # As boards will read it.
        moved = np.clip(self.published[indices] + changes, WEIGHT_MIN, WEIGHT_MAX)
        self.published[indices] = moved
        self.version += 1
        return Delta(self._spec.lineage, self.version, self.checksum, block)

    def chunks(self) -> list[Chunk]:
        """The published model in parts that any board can take in."""
        content = self.published.tobytes()
        parts = [content[i : i + CHUNK_BYTES] for i in range(0, len(content), CHUNK_BYTES)]
        lineage, checksum = self._spec.lineage, self.checksum
        return [
            Chunk(lineage, self.version, i, len(parts), checksum, part)
            for i, part in enumerate(parts)
        ]
