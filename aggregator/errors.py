"""What can stop the aggregator, or a command of its operator. Nothing that a peer sends can.

::

    AggregatorError
    +- SettingsError   a setting is missing or cannot be used: names the setting and what to give
    +- JournalError    the journal cannot be used: names the file and what to do
        +- JournalStuckError   ... for now: the disk is full, the file is locked, ...
    +- CommandError    a command cannot be carried out: says why
    +- RemoteError     a command cannot be brought to an aggregator: says where it got stuck
    +- StoreError      the model store does not hold what is asked for: says what it holds
    +- ModelFileError  a file does not hold a model that can be taken: names the file and why
"""


class AggregatorError(Exception):
    """The root of this package's exceptions."""


class SettingsError(AggregatorError):
    """A setting is missing or cannot be used. One line for each."""


class JournalError(AggregatorError):
    """The journal cannot be opened, read or written."""


class JournalStuckError(JournalError):
    """The journal cannot be used for now, through no fault of its content.

    The disk is full or does not answer, the file is locked or read-only. It is as it was before the
    call, and the same call may succeed later.
    """


class CommandError(AggregatorError):
    """An operator's command cannot be read or carried out.

    Args:
        message: why not.
        id_: of the command, where it could be read.
    """

    def __init__(self, message: str, id_: str = "") -> None:
        super().__init__(message)
        self.id = id_


class RemoteError(AggregatorError):
    """A fleet's aggregator cannot be reached, or does not answer."""


class StoreError(AggregatorError):
    """The model store does not hold what is asked for."""


class ModelFileError(AggregatorError):
    """A file cannot be written, or does not hold a model that can be taken."""
