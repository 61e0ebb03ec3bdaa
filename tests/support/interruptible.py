"""The `tinymetafed` command, for tests that press Ctrl-C.

Whoever starts the tests in the background has its children ignore Ctrl-C; this one does not.
"""

import signal
import sys
from typing import Final

from cli.main import app

COMMAND: Final = (sys.executable, __file__)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    app()
