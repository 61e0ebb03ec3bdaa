"""The fleet's model as this board holds it: fetched whole in chunks, or moved on by deltas."""

from binascii import crc32

from micropython import const

from tinymetafed.errors import MessageError

_CHUNK = const(1024)
NONE = const(-1)


class Model:
    """Published weights and their version.

    Args:
        lineage: messages of another one are passed over.
        base: where the weights lie, int16 little endian.
        codec: decodes sparse blocks for them.
    """

    def __init__(self, lineage, base, codec):
        self._lineage = lineage
        self._base = base
        self._codec = codec
        self._chunks = bytearray(-(-len(base) // _CHUNK))  # 1 where a chunk has come
        self._fetched = NONE  # the version that the chunks so far belong to
        self.version = NONE

    def begin_fetch(self):
        """Forget what there is; chunks follow."""
        self.version = self._fetched = NONE

    def take(self, chunk):
        """Take in a chunk, also when the next version is published in the middle of a fetch.

        Raises:
            MessageError: all chunks are there, but they are not the model that was published.
        """
        start = chunk.chunk * _CHUNK
        end = start + len(chunk.weights)
        if chunk.lineage != self._lineage or chunk.version < self._fetched:
            return
        if chunk.chunk >= len(self._chunks) or end > len(self._base) or self.version != NONE:
            return
        if chunk.version > self._fetched:
            self._fetched = chunk.version
            self._chunks[:] = bytes(len(self._chunks))
        self._base[start:end] = chunk.weights
        self._chunks[chunk.chunk] = 1
        if all(self._chunks):
            self._settle(self._fetched, chunk.checksum)

    def move(self, delta):
        """Go on by one version, if this delta does so.

        Raises:
            MessageError: what results is not what was published; then there is no model.
        """
        if self.version == NONE or delta.lineage != self._lineage:
            return
        if delta.version != self.version + 1:
            return
        self.version = self._fetched = NONE
        self._codec.apply(delta.changes, self._base)
        self._settle(delta.version, delta.checksum)

    def _settle(self, version, checksum):
        if crc32(self._base) != checksum:
            self._fetched = NONE
            raise MessageError("model %d: wrong checksum; it is fetched anew" % version)
        self.version = version
