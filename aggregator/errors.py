"""What an aggregator cannot do. What stops it is in :mod:`runtime.errors`.

::

    AggregatorError
    +- StoreError      the model store does not hold what is asked for: says what it holds
"""

from protocol.errors import TinyMetaFedError


class AggregatorError(TinyMetaFedError):
    """The root of this package's exceptions."""


class StoreError(AggregatorError):
    """The model store does not hold what is asked for."""
