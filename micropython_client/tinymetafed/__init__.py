"""TinyMetaFed on a board: learn from your own samples, with the fleet.

::

    from tinymetafed import Client

    Client("config.json").run(samples())
"""

import sys

from tinymetafed.errors import ConfigError, MessageError, ModelError, TinyMetaFedError

__all__ = ["Client", "ConfigError", "MessageError", "ModelError", "TinyMetaFedError"]


def __getattr__(name):
    # Loaded when first asked for: the client needs a network, the arithmetic alone does not.
    if name in ("Client", "__version__"):
        from tinymetafed import client

        return client.VERSION if name == "__version__" else client.Client
    # `from tinymetafed import kernels` asks here before it looks for a module of that name.
    __import__("tinymetafed." + name)
    return sys.modules["tinymetafed." + name]
