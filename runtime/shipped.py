"""Where the files lie that come with the project: in a wheel, or in the checkout that runs.

A wheel carries them in a folder beside this file; setup.py puts them there.
"""

from pathlib import Path
from typing import Final, Literal

FOLDER: Final = Path(__file__).parent / "files"
"""In a wheel."""
CHECKOUT: Final = Path(__file__).parent.parent
PLACES: Final = {
    "client": "build/client",
    "examples": "micropython_client/examples",
    "specs": "specs",
}
"""In a checkout: the compiled client by architecture, examples for boards, and specs."""


def shipped(kind: Literal["client", "examples", "specs"]) -> Path:
    """The folder of a kind of file. In a checkout the client's is there after `make client`."""
    return FOLDER / kind if FOLDER.is_dir() else CHECKOUT / PLACES[kind]
