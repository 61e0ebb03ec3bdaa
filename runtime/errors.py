"""What can stop a service, or a command to one. Nothing that a peer sends can.

::

    ServiceError
    +- SettingsError    a setting is missing or cannot be used: names the setting and what to give
    +- StateError       a state folder's file cannot be used: names the file and what to do
    |   +- StateStuckError  ... for now: the disk is full, the file is locked, ...
    +- RemoteError      a service cannot be asked: says where it got stuck
    +- ModelFileError   a file does not hold a model that can be taken: names the file and why
"""

from protocol.errors import TinyMetaFedError


class ServiceError(TinyMetaFedError):
    """The root of this package's exceptions."""


class SettingsError(ServiceError):
    """A setting is missing or cannot be used. One line for each."""


class StateError(ServiceError):
    """A state folder's file cannot be opened, read or written."""


class StateStuckError(StateError):
    """The file cannot be used for now, through no fault of its content.

    The disk is full or does not answer, the file is locked or read-only. It is as it was before the
    call, and the same call may succeed later.
    """


class RemoteError(ServiceError):
    """A fleet's aggregator cannot be reached, or does not answer."""


class ModelFileError(ServiceError):
    """A file cannot be written, or does not hold a model that can be taken."""
