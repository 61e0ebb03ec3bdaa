"""What can go wrong in a simulation.

::

    SimulationError
    +- DataError      a data set that is absent or not what it should be: says how to get it
"""

from protocol.errors import TinyMetaFedError


class SimulationError(TinyMetaFedError):
    """The root of this package's exceptions."""


class DataError(SimulationError):
    """A data set that cannot be read: names the path, what is wrong there, and what to do."""
