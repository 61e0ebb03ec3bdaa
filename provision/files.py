"""The files that a board needs of the project: the compiled client, and boot.py for the Wi-Fi."""

import shutil
from pathlib import Path

from provision.errors import ProvisionError
from runtime.shipped import shipped


def write(architecture: str, folder: Path) -> list[Path]:
    """Write a board's files as they will lie on the board.

    Args:
        architecture: of its processor, as mpy-cross names it: ``armv6m`` for an RP2040.
        folder: made if need be. ``lib/tinymetafed`` in it is written anew; a ``boot.py`` that is
            there stays, for it holds a password.

    Returns:
        What was written: a folder of compiled modules, and perhaps boot.py.

    Raises:
        ProvisionError: there is no client for this architecture, or the folder cannot be written.
    """
    client = shipped("client")
    known = sorted(path.name for path in client.glob("*") if path.is_dir())
    if not known:
        raise ProvisionError(f"{client}: the client is not compiled yet: run `make client`")
    if architecture not in known:
        raise ProvisionError(
            f"there is no client for the architecture {architecture!r}; there are "
            f"{', '.join(known)}"
        )
    package, boot = folder / "lib" / "tinymetafed", folder / "boot.py"
    try:
        shutil.rmtree(package, ignore_errors=True)  # A module of an older version would stay.
        shutil.copytree(client / architecture / "tinymetafed", package)
        if boot.exists():
            return [package]
        shutil.copyfile(shipped("examples") / "boot.py", boot)
    except OSError as error:
        raise ProvisionError(f"{folder}: cannot be written ({error})") from error
    return [package, boot]
