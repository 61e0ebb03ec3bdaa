"""Speech Commands: keywords of one second, spoken by many.

Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition", arXiv 1804.03209
(CC BY 4.0). A speaker is a natural board: what is held out is held out by speaker.
"""

from __future__ import annotations

import re
import tarfile
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from simulation.errors import DataError
from simulation.tasks.split import held_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

RATE: Final = 16000
"""Samples in a second, and in a clip."""
HOW: Final = (
    "give the folder of an unpacked Speech Commands archive, such as "
    "https://storage.googleapis.com/download.tensorflow.org/data/"
    "speech_commands_test_set_v0.02.tar.gz: <keyword>/<speaker>_nohash_<n>.wav"
)
_NAME = re.compile(r"([0-9a-zA-Z]+)_nohash_\d+")


@dataclass(frozen=True)
class Keywords:
    """Clips, who says what."""

    samples: NDArray[np.int16]
    """Shape (clips, RATE)."""
    keyword: NDArray[np.int64]
    """Which of ``keywords`` each clip says; shape (clips,)."""
    speaker: NDArray[np.int64]
    """Which of ``speakers`` says it; shape (clips,)."""
    keywords: tuple[str, ...]
    speakers: tuple[str, ...]

    def split(self, share: float = 0.2, seed: int = 1) -> tuple[Keywords, Keywords]:
        """Speakers to learn from, and about ``share`` of them that are held out."""
        is_test = held_out(self.speakers, share, seed)
        return self._some(~is_test), self._some(is_test)

    def _some(self, chosen: NDArray[np.bool_]) -> Keywords:
        """What these speakers say; they are numbered anew."""
        clips = chosen[self.speaker]
        number = np.cumsum(chosen) - 1
        speakers = tuple(name for name, one in zip(self.speakers, chosen, strict=True) if one)
        return Keywords(
            self.samples[clips],
            self.keyword[clips],
            number[self.speaker[clips]],
            self.keywords,
            speakers,
        )


def load(path: Path) -> Keywords:
    """Read the published folders; those whose name starts with an underscore hold no keyword.

    Raises:
        DataError: there is nothing, or something else; with how to get the data.
    """
    if path.is_file() and tarfile.is_tarfile(path):
        raise DataError(f"{path}: unpack it first (tar -xf), then give the folder")
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder; {HOW}")
    files = sorted(
        file
        for file in path.glob("*/*.wav")
        if _NAME.fullmatch(file.stem) and not file.parent.name.startswith("_")
    )
    if not files:
        raise DataError(f"{path}: no <keyword>/<speaker>_nohash_<n>.wav in it; {HOW}")
    said = [file.parent.name for file in files]
    by = [file.stem.split("_")[0] for file in files]
    keywords, keyword = np.unique(said, return_inverse=True)
    speakers, speaker = np.unique(by, return_inverse=True)
    return Keywords(
        np.array([read(file) for file in files]),
        keyword,
        speaker,
        tuple(keywords.tolist()),
        tuple(speakers.tolist()),
    )


def read(file: Path) -> NDArray[np.int16]:
    """One second of a WAV: a shorter one is followed by silence, a longer one is cut.

    Raises:
        DataError: it is not a WAV of 16-bit samples, one channel and 16 kHz.
    """
    try:
        with wave.open(str(file)) as clip:
            found = (clip.getnchannels(), 8 * clip.getsampwidth(), clip.getframerate())
            content = clip.readframes(RATE)
    except (OSError, EOFError, wave.Error) as error:
        raise DataError(f"{file}: not a WAV file ({error}); {HOW}") from error
    if found != (1, 16, RATE):
        raise DataError(
            f"{file}: {found[0]} channels of {found[1]} bits at {found[2]} Hz; it must be 1 of 16 "
            f"bits at {RATE} Hz"
        )
    samples = np.zeros(RATE, np.int16)
    heard = np.frombuffer(content[: len(content) // 2 * 2], "<i2")
    samples[: len(heard)] = heard
    return samples
