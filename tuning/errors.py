"""What can go wrong in a search.

::

    TuningError
"""


class TuningError(Exception):
    """The root of this package's exceptions: says what was wrong, and what to do."""
