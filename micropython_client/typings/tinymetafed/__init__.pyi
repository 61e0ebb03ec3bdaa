"""TinyMetaFed on a board: learn from your own samples, with the fleet.

::

    from tinymetafed import Client

    Client("config.json").run(samples())
"""

from tinymetafed.client import Client
from tinymetafed.errors import ConfigError, MessageError, ModelError, TinyMetaFedError

__all__ = ["Client", "ConfigError", "MessageError", "ModelError", "TinyMetaFedError"]

__version__: str
