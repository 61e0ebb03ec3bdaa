"""What can go wrong in a search.

::

    TuningError
"""

from protocol.errors import TinyMetaFedError


class TuningError(TinyMetaFedError):
    """The root of this package's exceptions: says what was wrong, and what to do."""
