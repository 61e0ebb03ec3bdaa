"""TinyMetaFed on a board: learn from your own samples, with the fleet.

::

    from tinymetafed import Client

    Client("config.json").run(samples())
"""

import gc
import sys

from micropython import const

from tinymetafed.errors import ConfigError, MessageError, ModelError, TinyMetaFedError

_TIDY = const(4096)

__all__ = ["Client", "ConfigError", "MessageError", "ModelError", "TinyMetaFedError"]


def tidy(is_starting):
    """Have the heap collected every few KB while the client starts, until it has a network.

    What lasts then lies close together, and leaves the long stretches of heap that a network takes.
    Where the program has set a gc.threshold() of its own, that stays.
    """
    usual, now = (-1, _TIDY) if is_starting else (_TIDY, -1)
    if gc.threshold() == usual:
        gc.threshold(now)


def __getattr__(name):
    # Loaded when first asked for: the client needs a network, the arithmetic alone does not.
    if name in ("Client", "__version__"):
        if "tinymetafed.client" not in sys.modules:
            tidy(True)
        from tinymetafed import client, session

        return session.VERSION if name == "__version__" else client.Client
    # `from tinymetafed import kernels` asks here before it looks for a module of that name.
    __import__("tinymetafed." + name)
    return sys.modules["tinymetafed." + name]
