"""Omniglot: handwritten characters, twenty drawings each.

Lake, Salakhutdinov, Tenenbaum, "Human-level concept learning through probabilistic program
induction", Science 350 (2015); https://github.com/brendenlake/omniglot (MIT).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zipfile import BadZipFile

import numpy as np

from simulation.errors import DataError
from simulation.tasks.split import held_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE: Final = 105
"""Pixels of a drawing's side as published."""
HOW: Final = (
    "give the folder images_background or images_evaluation of "
    "https://github.com/brendenlake/omniglot, unpacked (<alphabet>/<character>/*.png), "
    "or an .npz with an array `images`"
)


@dataclass(frozen=True)
class Omniglot:
    """Characters and their drawings."""

    ink: NDArray[np.bool_]
    """Shape (characters, drawings, SIDE, SIDE); true where there is ink."""
    names: tuple[str, ...]
    """Of the characters; an .npz without names numbers them."""

    def split(self, share: float = 0.2, seed: int = 1) -> tuple[Omniglot, Omniglot]:
        """Characters to learn from, and about ``share`` of them that are held out."""
        is_test = held_out(self.names, share, seed)
        return self._some(~is_test), self._some(is_test)

    def _some(self, chosen: NDArray[np.bool_]) -> Omniglot:
        names = tuple(name for name, one in zip(self.names, chosen, strict=True) if one)
        return Omniglot(self.ink[chosen], names)

    def alphabets(self) -> tuple[NDArray[np.int64], ...]:
        """The characters of each alphabet, in the order of the alphabets' names.

        Raises:
            DataError: the names do not say.
        """
        if not all("/" in name for name in self.names):
            raise DataError(
                "the names of these characters do not say their alphabets; give the published "
                "folders, or an .npz with `names` such as Greek/character01"
            )
        _, alphabet = np.unique([name.split("/")[0] for name in self.names], return_inverse=True)
        return tuple(np.flatnonzero(alphabet == i) for i in range(alphabet.max() + 1))

    def reduced(self, side: int) -> NDArray[np.float32]:
        """The drawings in fewer pixels: the share of each that is ink, from 0 to 1.

        Args:
            side: pixels of a drawing's side, at most SIDE.

        Returns:
            Shape (characters, drawings, side, side).
        """
        # In units of 1/side source pixels and SIDE target pixels, all borders are whole numbers.
        new = np.arange(side)[:, None] * SIDE
        old = np.arange(SIDE)[None, :] * side
        overlap = np.minimum(new + SIDE, old + side) - np.maximum(new, old)
        cover = np.maximum(overlap, 0).astype(np.float32)
        # Integers below 2**24: float32 holds them exactly, in any order of summation.
        sums = cover @ self.ink.astype(np.float32) @ cover.T
        return np.asarray(sums / np.float32(SIDE**2), np.float32)


def load(path: Path) -> Omniglot:
    """Read the published folders, or an .npz.

    An .npz holds ``images``, bool, true where there is paper, shape (characters, drawings, 105,
    105), and may hold ``names``.

    Raises:
        DataError: there is nothing, or something else; with how to get the data.
    """
    if path.is_dir():
        return _from_folders(path)
    if path.is_file():
        return _from_archive(path)
    raise DataError(f"{path}: there is no such file or folder; {HOW}")


def _from_archive(path: Path) -> Omniglot:
    try:
        with np.load(path, allow_pickle=False) as archive:
            images = archive["images"]
            names = archive["names"].tolist() if "names" in archive else range(len(images))
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise DataError(f"{path}: not an .npz with an array `images` ({error}); {HOW}") from error
    if images.dtype != np.bool_ or images.ndim != 4 or images.shape[2:] != (SIDE, SIDE):
        raise DataError(
            f"{path}: `images` is {images.dtype} of shape {images.shape}; it must be bool of shape "
            f"(characters, drawings, {SIDE}, {SIDE})"
        )
    if len(names) != len(images):
        raise DataError(f"{path}: {len(names)} names for {len(images)} characters")
    return Omniglot(~images, tuple(str(name) for name in names))


def _from_folders(path: Path) -> Omniglot:
    files = [sorted(folder.glob("*.png")) for folder in sorted(path.glob("*/*")) if folder.is_dir()]
    files = [drawings for drawings in files if drawings]
    if not files:
        raise DataError(f"{path}: no <alphabet>/<character>/*.png in it; {HOW}")
    counts = {len(drawings) for drawings in files}
    if len(counts) > 1:
        odd = min(files, key=len)
        raise DataError(
            f"{odd[0].parent}: {len(odd)} drawings where others have {max(counts)}; is the copy "
            f"complete? {HOW}"
        )
    ink = np.array([[_read(file) for file in drawings] for drawings in files])
    return Omniglot(ink, tuple("/".join(drawings[0].parts[-3:-1]) for drawings in files))


def _read(file: Path) -> NDArray[np.bool_]:
    """The ink of a drawing, which is black on white."""
    from PIL import Image  # noqa: PLC0415 - of the extra `research`; an .npz does without

    try:
        with Image.open(file) as image:
            paper = np.asarray(image.convert("1"), np.bool_)
    except OSError as error:
        raise DataError(f"{file}: not a PNG ({error}); {HOW}") from error
    if paper.shape != (SIDE, SIDE):
        raise DataError(f"{file}: {paper.shape} pixels; Omniglot's drawings have {SIDE} x {SIDE}")
    return ~paper
