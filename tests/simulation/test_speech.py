"""A board hears what the host hears, to the last bit; and both hear what speech science hears.

The golden vectors, and clips of every kind, go through the shipped client in pieces of any size.
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from localfleet.parts import Bits
from protocol import fixed
from simulation.tasks import keywords, speech
from tests.support.parts import GOLDEN, on_both_boards, run_board

TIME: Final = np.arange(speech.RATE) / speech.RATE

Clips = NDArray[np.int16]


def vectors() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((GOLDEN / "speech.json").read_text(encoding="utf-8"))
    return found


def as_samples(*signals: Any) -> Clips:
    return np.clip(np.rint(signals), -32768, 32767).astype(np.int16)


def chirp(first: float, last: float) -> NDArray[np.float64]:
    """A tone that glides from one frequency to another, in Hz."""
    return np.sin(2 * np.pi * (first * TIME + (last - first) / 2 * TIME**2))


def lifelike() -> Clips:
    """What a microphone may hear: chirps, vowels and clicks in a room that is never quite still."""
    rng = np.random.default_rng(7)
    room = rng.normal(size=(9, speech.RATE))
    vowel = sum(chirp(120 * k, 140 * k) / k for k in range(1, 20))
    click = np.where(np.arange(speech.RATE) % 1000 == 7, 1.0, 0.0)
    rise = np.sin(np.pi * TIME)
    return as_samples(
        20000 * chirp(100, 7000) + 30 * room[0],
        3000 * chirp(4000, 200) + 30 * room[1],
        200 * chirp(300, 900) + 10 * room[2],
        12000 * vowel * rise + 30 * room[3],
        900 * vowel * rise**8 + 10 * room[4],
        30000 * click + 20 * room[5],
        3000 * room[6] * rise,
        30 * room[7],
        9000 * vowel * rise + 3000 + 60 * room[8],
    )


def extreme() -> Clips:
    """What no microphone should say."""
    rng = np.random.default_rng(8)
    n = np.arange(speech.RATE)
    ends = np.array([-32768, 32767])
    return as_samples(
        0 * n,
        0 * n + 32767,
        0 * n - 32768,
        ends[n % 2],
        ends[n // 20 % 2],
        ends[n // 256 % 2],
        ends[rng.integers(2, size=speech.RATE)],
        rng.integers(-32768, 32768, speech.RATE),
        np.where(n % 512 == 256, 32767, -32768),
        np.where(n % 700 == 5, -32768, 0),
        1e9 * chirp(60, 8000),
        n % 2,
        32767 * np.cos(2 * np.pi * 1000 * TIME),
    )


def reference(clips: Clips) -> NDArray[np.float64]:
    """The same features in float64, as a textbook has them."""
    frames = clips[:, : speech.FRAMES * speech.WINDOW].astype(np.float64)
    frames = frames.reshape(-1, speech.FRAMES, speech.WINDOW)
    frames -= frames.mean(axis=-1, keepdims=True)
    hann = np.sin(np.pi * np.arange(speech.WINDOW) / speech.WINDOW) ** 2
    power = np.abs(np.fft.rfft(frames * hann)) ** 2
    bins = np.arange(power.shape[-1])[:, None]
    start, peak, end = (np.array(speech.EDGES[i : i + speech.BANDS]) for i in range(3))
    triangles = np.minimum((bins - start) / (peak - start), (end - bins) / (end - peak)).clip(0)
    logarithms = np.log2(power @ triangles + 2.0**speech.FLOOR_BITS) / 8
    centred: NDArray[np.float64] = logarithms - logarithms.mean(axis=(1, 2), keepdims=True)
    return centred


def correlations(clips: Clips) -> list[float]:
    fast = speech.features(clips) / 2**fixed.ACTIVATION_BITS
    pairs = zip(fast, reference(clips), strict=True)
    return [float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a, b in pairs]


# --- What the features are


def test_they_are_log_mel_features() -> None:
    assert min(correlations(lifelike())) > 0.999


def test_whispers_and_shouts_are_one_word() -> None:
    loud = 12000 * chirp(200, 3000) * np.sin(np.pi * TIME)
    near, far = speech.features(as_samples(loud, loud / 8))
    assert np.corrcoef(near.ravel(), far.ravel())[0, 1] > 0.95


def test_silence_and_a_stuck_sensor_are_zeros() -> None:
    n = np.zeros(speech.RATE)
    assert not speech.features(as_samples(n, n + 32767, n - 32768)).any()


def test_an_offset_changes_nothing() -> None:
    clips = lifelike()[1:3]
    assert np.abs(speech.features(clips + np.int16(5000)) - speech.features(clips)).max() <= 1


def test_they_fit_an_activation() -> None:
    words = speech.features(np.concatenate([lifelike(), extreme()]))
    assert np.abs(words).max() <= fixed.ACTIVATION_MAX
    assert words.shape[1:] == (speech.FRAMES, speech.BANDS)


def test_the_triangles_are_evenly_spaced_in_mel() -> None:
    mel = 1127 * np.log1p(np.array(speech.EDGES) * speech.RATE / speech.WINDOW / 700)
    even = np.linspace(mel[0], mel[-1], len(mel))
    bin_width = np.gradient(mel) / np.gradient(speech.EDGES)
    assert (np.abs(mel - even) < bin_width).all()


def test_the_tables_of_integers_are_sines() -> None:
    exact = 2**15 * np.sin(2 * np.pi * np.arange(385) / speech.WINDOW)
    assert np.abs(np.array(speech.sines()) - exact).max() <= 0.5 + 1e-6


# --- Why nothing leaves 32 bits


def test_no_sum_leaves_32_bits() -> None:
    fits = 2**31
    farthest = 65535 * 511 // 512 + 1  # from the mean, of which a sample is a 512th
    assert farthest * 2**15 + 2**15 < fits  # the window
    modulus = np.sqrt(2) * 2**15
    assert modulus * 2**15 + 2**14 < fits  # a value turned
    assert 2**15 + modulus + 1 < 2**17  # a sum of two
    largest = (2**15 + 2) ** 2  # a bin's power
    assert largest < fits
    area = max(
        (end - start + 1) / 2 for start, end in zip(speech.EDGES, speech.EDGES[2:], strict=False)
    )
    assert area * 256 * ((largest >> 12) + 1) + 2**24 < fits  # a band, its high word
    assert area * 256 * 4095 + (2**15 << 12) < fits  # ... its low word, or both in one
    assert all(start < end for start, end in pairwise(speech.EDGES))


def test_the_extremes_stay_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    for name in ("_windowed", "_transform", "_power", "_bands"):
        whole = getattr(speech, name)

        def watched(*arguments: Any, whole: Any = whole) -> Any:
            answer = whole(*arguments)
            seen.extend(int(np.abs(part).max()) for part in answer)
            return answer

        monkeypatch.setattr(speech, name, watched)
    speech.features(extreme())
    assert max(seen) < 2**31


# --- The board


@pytest.mark.real
@on_both_boards
def test_a_board_hears_the_golden_clips_alike(bits: Bits) -> None:
    *answers, _ = run_board("speech.py", bits, GOLDEN / "speech.json")
    for vector, answer in zip(vectors(), answers, strict=True):
        assert answer["words"] == vector["words"], vector["name"]


@pytest.mark.real
@on_both_boards
def test_a_board_hears_every_bit(bits: Bits, tmp_path: Path) -> None:
    clips = np.concatenate([lifelike(), extreme()])
    (tmp_path / "clips.raw").write_bytes(clips.astype("<i2").tobytes())
    *answers, last = run_board("speech.py", bits, tmp_path / "clips.raw")
    for number, (answer, words) in enumerate(zip(answers, speech.features(clips), strict=True)):
        assert answer["words"] == words.ravel().tolist(), f"clip {number}"
        assert answer["taken"] == speech.FRAMES * speech.WINDOW
    # Wrong buffers are refused with what to give; empty ones change nothing.
    assert last["refused"] == [True] * 7
    assert last["empty"] == [0, 0]
    assert last["needed"] < 12 * 1024


# --- The real thing


@pytest.fixture(scope="module")
def spoken(speech_commands: Path) -> Clips:
    return keywords.load(speech_commands).samples


def test_real_keywords_have_log_mel_features(spoken: Clips) -> None:
    found = correlations(spoken[::10])
    assert min(found) > 0.999


@pytest.mark.real
@on_both_boards
def test_a_board_hears_real_keywords_alike(spoken: Clips, bits: Bits, tmp_path: Path) -> None:
    clips = spoken[::80]
    (tmp_path / "clips.raw").write_bytes(clips.astype("<i2").tobytes())
    *answers, _ = run_board("speech.py", bits, tmp_path / "clips.raw")
    for answer, words in zip(answers, speech.features(clips), strict=True):
        assert answer["words"] == words.ravel().tolist()
