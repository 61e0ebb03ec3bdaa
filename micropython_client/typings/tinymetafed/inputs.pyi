"""What a source of samples gives, taken in where the network's kernels find it."""

from array import array

class Activations:
    """A sample that is in the network's format already; what comes next overwrites it."""

    words: array[int]
    def __init__(self, count: int) -> None: ...
