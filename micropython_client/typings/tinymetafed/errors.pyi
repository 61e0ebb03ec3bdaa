"""What can go wrong on a board.

::

    TinyMetaFedError
    +- ConfigError     the configuration cannot be used: says which setting and what to write
    +- ModelError      the fleet's model does not fit this board, or a sample does not fit the model
    +- MessageError    a message that is not what its topic promises
"""

class TinyMetaFedError(Exception):
    """The root of this package's exceptions."""

class ConfigError(TinyMetaFedError):
    """A configuration that cannot be used."""

class ModelError(TinyMetaFedError):
    """A model that does not fit this board, or a sample that does not fit the model."""

class MessageError(TinyMetaFedError):
    """Bytes that are not the message their topic promises."""
