"""What a microphone hears in a second, as a network's input: log-mel features in fixed point.

::

    features = Features()
    while not features.is_complete:
        microphone.readinto(buffer)  # int16 samples at 16 kHz
        features.feed(buffer)
    network.read(features, keyword)
    features.begin()  # for the next second

Samples are taken in as they come; only one frame of them is kept. The arithmetic is that of the
host's ``simulation/tasks/speech.py``, to the last bit; it says why nothing leaves 32 bits. The
tables are made of integers at the start, so that they are the same on every board. For _WIDE see
kernels.py.
"""

from array import array

from tinymetafed.inputs import Activations

class Features(Activations):
    """Log-mel features of a second, a sample of FRAMES rows of BANDS activations.

    All memory is taken here: words (2.4 KB), a frame (2 KB), in which its spectrum is computed, and
    tables (2 KB).
    """

    def __init__(self) -> None: ...
    @property
    def is_complete(self) -> bool:
        """Whether the words are a whole second's features."""
    def begin(self) -> None:
        """Start the next second: forget what was heard."""
    def feed(self, samples: array[int] | bytes | bytearray | memoryview) -> int:
        """Take in int16 samples at 16 kHz, as many or few as there are.

        Args:
            samples: an array("h"), or bytes as a microphone's readinto() fills them.

        Returns:
            How many were taken: fewer than given when the second is complete.

        Raises:
            ModelError: samples of another type.
        """
