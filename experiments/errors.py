"""What can go wrong in an experiment.

::

    ExperimentError
"""

from protocol.errors import TinyMetaFedError


class ExperimentError(TinyMetaFedError):
    """The root of this package's exceptions: says what was wrong, and what to do."""
