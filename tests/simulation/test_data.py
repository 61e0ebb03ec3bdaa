"""Data sets are read as their users have them; what cannot be read says how to get it."""

import tarfile
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from localfleet.processes import PROJECT
from protocol.spec.spec import Spec
from simulation.errors import DataError
from simulation.tasks import keywords, omniglot
from simulation.tasks.held_out import Split, tasks_for
from simulation.tasks.split import held_out

CHARACTERS = ["Greek/character01", "Greek/character02", "Runes/character01"]


def draw(folder: Path, characters: list[str], drawings: int = 3) -> Path:
    """Omniglot's folders; the drawing d of character c is a bar of ink, 10 rows in row 10 c + d."""
    for c, name in enumerate(characters):
        (folder / name).mkdir(parents=True)
        for d in range(drawings):
            paper = np.full((omniglot.SIDE, omniglot.SIDE), 255, np.uint8)
            paper[10 * c + d : 10 * c + d + 10] = 0
            Image.fromarray(paper).convert("1").save(folder / name / f"{c:04}_{d:02}.png")
    return folder


def archive(path: Path, **arrays: Any) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)


def say(path: Path, samples: Any, *, rate: int = 16000, width: int = 2, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as clip:
        clip.setparams((channels, width, rate, 0, "NONE", ""))
        clip.writeframes(np.asarray(samples, "<i2").tobytes())


# --- Omniglot


def test_the_published_folders_are_read_in_order(tmp_path: Path) -> None:
    data = omniglot.load(draw(tmp_path, CHARACTERS))
    assert data.names == tuple(CHARACTERS)
    assert data.ink.shape == (3, 3, 105, 105)
    assert data.ink[1, 2].all(axis=1).nonzero()[0].tolist() == list(range(12, 22))
    assert data.ink.sum() == 9 * 10 * 105


def test_an_archive_says_the_same_as_its_folders(tmp_path: Path) -> None:
    data = omniglot.load(draw(tmp_path / "folders", CHARACTERS))
    np.savez(tmp_path / "all.npz", images=~data.ink, names=np.array(data.names))
    archived = omniglot.load(tmp_path / "all.npz")
    assert archived.names == data.names
    assert np.array_equal(archived.ink, data.ink)


@pytest.mark.parametrize("side", [14, 28, 105])
def test_a_reduced_drawing_keeps_its_ink(tmp_path: Path, side: int) -> None:
    data = omniglot.load(draw(tmp_path, CHARACTERS))
    small = data.reduced(side)
    assert small.shape == (3, 3, side, side)
    assert small.dtype == np.float32
    assert small.mean(axis=(2, 3)) == pytest.approx(data.ink.mean(axis=(2, 3)))
    assert small.min() == 0
    assert small.max() == 1
    # A pixel of 14 x 14 is 7.5 x 7.5 as drawn: rows 0 to 9 fill the first, a third of the second.
    column = small[0, 0, :, 0].tolist()
    expected: list[float] = {14: [1.0, 1 / 3, 0], 28: [1.0, 1, 2 / 3, 0], 105: [1.0] * 10 + [0]}[
        side
    ]
    assert column[: len(expected)] == pytest.approx(expected)


def test_characters_are_held_out_by_name(tmp_path: Path) -> None:
    data = omniglot.load(draw(tmp_path, [f"Tengwar/character{i:02}" for i in range(30)], 1))
    learned, tested = data.split(0.3)
    assert sorted(learned.names + tested.names) == sorted(data.names)
    assert 3 < len(tested.names) < 15
    assert tested.ink.shape[0] == len(tested.names)
    assert data.split(0.3, seed=2)[1].names != tested.names
    # Whatever comes with them, they stay held out.
    some = np.array(data.names)[10:].tolist()
    again = np.array(some)[held_out(some, 0.3)].tolist()
    assert set(again) == set(tested.names) & set(some)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "no such file or folder"),
        (lambda path: path.mkdir(), "no <alphabet>/<character>"),
        (lambda path: path.write_bytes(b"PK not quite"), "not an .npz"),
        (lambda path: archive(path, other=np.zeros(3)), "not an .npz"),
        (lambda path: archive(path, images=np.zeros((2, 20, 28, 28))), "float64"),
    ],
)
def test_what_is_not_omniglot_is_refused(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "data"
    make(path)
    with pytest.raises(DataError, match=message) as caught:
        omniglot.load(path)
    assert str(path) in str(caught.value)


def test_a_broken_copy_of_omniglot_is_refused(tmp_path: Path) -> None:
    folder = draw(tmp_path, CHARACTERS)
    (first := folder / CHARACTERS[0] / "0000_00.png").write_bytes(b"\x89PNG, or so")
    with pytest.raises(DataError, match="not a PNG"):
        omniglot.load(folder)
    first.unlink()
    with pytest.raises(DataError, match="2 drawings where others have 3"):
        omniglot.load(folder)


def test_real_drawings(omniglot_archive: Path) -> None:
    data = omniglot.load(omniglot_archive)
    assert data.ink.shape == (964, 20, 105, 105)
    assert 0.03 < data.ink.mean() < 0.1  # Ink on paper, not the other way round.
    learned, tested = data.split()
    assert len(learned.names) + len(tested.names) == 964
    assert 150 < len(tested.names) < 240


# --- Speech Commands


def test_the_published_clips_are_read_with_who_says_what(tmp_path: Path) -> None:
    say(tmp_path / "yes" / "0a1b_nohash_0.wav", [1, 2, -3])
    say(tmp_path / "yes" / "ffff_nohash_1.wav", np.arange(20000))
    say(tmp_path / "no" / "0a1b_nohash_0.wav", np.full(16000, -32768))
    say(tmp_path / "_background_noise_" / "rain_nohash_0.wav", np.ones(16000))
    data = keywords.load(tmp_path)
    assert data.keywords == ("no", "yes")
    assert data.speakers == ("0a1b", "ffff")
    assert data.keyword.tolist() == [0, 1, 1]
    assert data.speaker.tolist() == [0, 0, 1]
    assert data.samples.shape == (3, keywords.RATE)
    assert data.samples[1, :5].tolist() == [1, 2, -3, 0, 0]
    assert data.samples[2, -1] == 15999
    assert data.samples[0].min() == data.samples[0].max() == -32768


def test_speakers_are_held_out_with_all_they_say(tmp_path: Path) -> None:
    for speaker in range(12):
        say(tmp_path / "go" / f"{speaker:08x}_nohash_0.wav", [speaker])
        say(tmp_path / "stop" / f"{speaker:08x}_nohash_0.wav", [speaker])
    learned, tested = keywords.load(tmp_path).split(0.4)
    assert len(learned.speakers) + len(tested.speakers) == 12
    assert set(learned.speakers).isdisjoint(tested.speakers)
    for half in (learned, tested):
        assert len(half.speakers) > 2
        said_by = [int(half.speakers[i], 16) for i in half.speaker]
        assert half.samples[:, 0].tolist() == said_by


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "no such folder"),
        (lambda path: path.mkdir(), "no <keyword>/<speaker>"),
        (lambda path: path.write_text("hello"), "no such folder"),
        (lambda path: say(path / "a" / "b_nohash_0.wav", [0], rate=8000), "8000 Hz"),
        (lambda path: say(path / "a" / "b_nohash_0.wav", [0, 0], channels=2), "2 channels"),
        (lambda path: say(path / "a" / "b_nohash_0.wav", [0], width=1), "8 bits"),
    ],
)
def test_what_is_not_speech_commands_is_refused(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "data"
    make(path)
    with pytest.raises(DataError, match=message) as caught:
        keywords.load(path)
    assert str(path) in str(caught.value)


def test_a_broken_clip_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "yes" / "0a1b_nohash_0.wav"
    for content in (b"", b"RIFF", b"RIFF\x04\0\0\0WAVE"):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        with pytest.raises(DataError, match="not a WAV"):
            keywords.load(tmp_path)


def test_a_packed_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "speech.tar.xz", "w:xz"):
        pass
    with pytest.raises(DataError, match="unpack it first"):
        keywords.load(tmp_path / "speech.tar.xz")


def test_real_keywords(speech_commands: Path) -> None:
    data = keywords.load(speech_commands)
    assert len(data.samples) == len(data.keyword) == len(data.speaker) == 1636
    assert len(data.keywords) == 10
    assert len(data.speakers) == 66


@pytest.mark.parametrize(
    ("name", "path", "split", "message"),
    [
        ("omniglot", None, None, "without data boards learn sines"),
        ("sine", "absent", None, "no such file or folder. Omniglot: "),
        ("sine", None, Split.SPEAKER, "cannot be split by speaker; take iid"),
        ("sine", "drawings", None, "these are characters"),
        ("omniglot", "drawings", Split.BOARD, "cannot be split by board; take iid or alphabet"),
        ("omniglot", "clips", None, "these are keywords"),
    ],
)
def test_data_that_do_not_fit_are_refused(
    tmp_path: Path, name: str, path: str | None, split: Split | None, message: str
) -> None:
    draw(tmp_path / "drawings", CHARACTERS)
    say(tmp_path / "clips" / "go" / "0a_nohash_0.wav", [1])
    spec = Spec.from_file(PROJECT / "specs" / f"{name}.toml")
    with pytest.raises(DataError, match=message):
        tasks_for(spec, tmp_path / path if path else None, split)
