"""What can stop the aggregator. Nothing that a peer sends can.

::

    AggregatorError
    +- SettingsError   a setting is missing or cannot be used: names the setting and what to give
    +- JournalError    the journal cannot be used: names the file and what to do
    +- CommandError    a command cannot be carried out: says why
"""


class AggregatorError(Exception):
    """The root of this package's exceptions."""


class SettingsError(AggregatorError):
    """A setting is missing or cannot be used. One line for each."""


class JournalError(AggregatorError):
    """The journal cannot be opened, read or written."""


class CommandError(AggregatorError):
    """An operator's command cannot be read or carried out.

    Args:
        message: why not.
        id_: of the command, where it could be read.
    """

    def __init__(self, message: str, id_: str = "") -> None:
        super().__init__(message)
        self.id = id_
