"""What can go wrong in a search.

::

    TuningError
    └── ProcessDiedError
"""

from protocol.errors import TinyMetaFedError


class TuningError(TinyMetaFedError):
    """The root of this package's exceptions: says what was wrong, and what to do."""


class ProcessDiedError(TuningError):
    """A process ended in the middle of a job."""
