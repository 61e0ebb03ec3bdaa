"""What can go wrong with real parts on this machine.

::

    LocalFleetError
    +- PartsError      a program is missing: one line per part says what it is and how to get it
    +- ProcessError    a program did not start, or ended by itself: says which, shows its log's end
    +- LoadError       boards cannot be played: says what does not answer, and what to look at
"""

from protocol.errors import TinyMetaFedError


class LocalFleetError(TinyMetaFedError):
    """The root of this package's exceptions."""


class PartsError(LocalFleetError):
    """A part is missing. One line per part says what it is and how to get it."""


class ProcessError(LocalFleetError):
    """A program did not start, or ended by itself."""


class LoadError(LocalFleetError):
    """Boards cannot be played against a broker and its aggregator."""
