"""Samples that need no float for each value: in the network's format, or integers of a converter.

Activations are words of 1/512.
"""

from array import array

from tinymetafed.inputs import Activations

__all__ = ["Activations", "Counts"]

class Counts(Activations):
    """Integers of a converter or a microphone as activations: (count - offset) * scale.

    Args:
        count: how many make a sample.
        scale: what one count is worth, above 0 and at most 16.
        offset: the count that stands for zero; a count counts up to 65535 away from it.
        is_signed: whether arrays of 16-bit counts hold negative ones, array("h") not array("H").

    Raises:
        ModelError: the scale or the offset is out of its range.
    """

    def __init__(
        self, count: int, scale: float, offset: int = 0, is_signed: bool = True
    ) -> None: ...
    def read(self, counts: array[int] | bytes | bytearray | memoryview) -> Counts:
        """These counts as a sample; itself, to be yielded.

        Allocates nothing for the buffer that was read last.

        Args:
            counts: an array of 16-bit integers, or another buffer of them such as a bytearray.

        Raises:
            ModelError: there are not as many as a sample has.
            TypeError: it is no buffer.
        """
