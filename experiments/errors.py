"""What can go wrong in an experiment.

::

    ExperimentError
"""


class ExperimentError(Exception):
    """The root of this package's exceptions: says what was wrong, and what to do."""
