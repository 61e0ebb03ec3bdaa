"""What can go wrong on a board.

::

    TinyMetaFedError
    +- ConfigError     the configuration cannot be used: says which setting and what to write
    +- ModelError      the fleet's model does not fit this board, or a sample does not fit the model
    +- MessageError    a message that is not what its topic promises
"""


class TinyMetaFedError(Exception):
    pass


class ConfigError(TinyMetaFedError):
    pass


class ModelError(TinyMetaFedError):
    pass


class MessageError(TinyMetaFedError):
    pass
