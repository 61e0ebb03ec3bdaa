"""What can go wrong on the way from a bare board to a member of a fleet.

::

    ProvisionError
"""

from protocol.errors import TinyMetaFedError


class ProvisionError(TinyMetaFedError):
    """The root of this package's exceptions: says what was wrong, and what to do."""
