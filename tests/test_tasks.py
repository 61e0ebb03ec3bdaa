"""Tasks ask boards for what they can know, and a fleet gets better at them."""

import numpy as np
import pytest

from localfleet.processes import PROJECT
from protocol import fixed, memory
from protocol.spec import Spec
from simulation import speech
from simulation.data.omniglot import Omniglot
from simulation.engine import Engine
from simulation.fleet import measure, play
from simulation.tasks import CharacterTasks, SpeakerTasks


def spec_of(name: str) -> Spec:
    return Spec.from_file(PROJECT / "specs" / f"{name}.toml")


def scribbles(characters: int, seed: int = 1) -> Omniglot:
    """Characters of a few thick lines; drawings of one differ in their place."""
    rng = np.random.default_rng(seed)
    ink = np.zeros((characters, 20, 105, 105), np.bool_)
    for character in ink:
        rows, columns = rng.integers(10, 80, (2, 3))
        for drawing in character:
            dy, dx = rng.integers(-6, 7, 2)
            for row in rows:
                drawing[row + dy : row + dy + 12, 15:90] = True
            for column in columns:
                drawing[15:90, column + dx : column + dx + 12] = True
    return Omniglot(ink, tuple(f"scribble {i}" for i in range(characters)))


@pytest.mark.parametrize("name", ["omniglot", "keywords"])
def test_a_shipped_spec_trains_on_a_board(name: str) -> None:
    spec = spec_of(name)
    needed = sum(memory.needed(spec.layers, spec.plan).values())
    assert needed < memory.BOARD
    says = f"A board needs {needed / 1000:.0f} KB for it"
    assert says in (PROJECT / "specs" / f"{name}.toml").read_text(encoding="utf-8")


def test_the_keyword_network_takes_what_a_board_hears() -> None:
    first = spec_of("keywords").layers[0]
    assert (first.height, first.width, first.channels) == (speech.FRAMES, speech.BANDS, 1)


def test_a_board_is_not_asked_about_a_drawing_that_it_has_learned() -> None:
    spec = spec_of("omniglot")
    tasks = CharacterTasks.of(spec, scribbles(8), turned=True)
    x, y = tasks.draw(np.random.default_rng(0), 3)
    assert x.shape == (50, 3, 14 * 14)
    assert x.max() == 1 << fixed.ACTIVATION_BITS
    for half in (y[:25], y[25:]):
        assert (np.sort(half[..., 0], axis=0) == np.repeat(np.arange(5), 5)[:, None]).all()
    numbered = np.arange(8 * 20).reshape(8, 20, 1, 1)
    marked = CharacterTasks(numbered, 5, 25, 25)
    x, y = marked.draw(np.random.default_rng(0), 4)
    for board in range(4):
        assert len(set(x[:, board, 0])) == 50
        assert (
            len(
                {
                    (drawing // 20, way)
                    for drawing, way in zip(x[:, board, 0], y[:, board, 0], strict=True)
                }
            )
            == 5
        )


def test_a_home_has_its_own_commands_and_is_not_asked_what_it_said() -> None:
    # 6 speakers who say each of 7 keywords twice; a clip's only value is its number.
    keyword, speaker = np.repeat(np.arange(7), 12), np.tile(np.arange(6), 14)
    features = np.arange(len(keyword)).reshape(1, -1, 1)
    tasks = SpeakerTasks(features, keyword, speaker, voices=2, ways=5, support=25, query=20)
    x, y = tasks.draw(np.random.default_rng(0), 30)
    assert x.shape == (45, 30, 1)
    commands = set()
    for board in range(30):
        clips, ways = x[:, board, 0], y[:, board, 0]
        assert set(clips[:25]).isdisjoint(clips[25:])
        assert len(set(speaker[clips])) == 2
        pairs = set(zip(ways.tolist(), keyword[clips].tolist(), strict=True))
        assert len(pairs) == 5
        commands.add(tuple(sorted(pairs)))
    assert len(commands) > 20


@pytest.mark.slow
def test_a_fleet_gets_better_at_characters_that_it_has_never_met() -> None:
    spec = spec_of("omniglot")
    rounds = spec.rounds.model_copy(update={"count": 12, "cohort": 3})
    spec = spec.model_copy(update={"rounds": rounds})
    learned = CharacterTasks.of(spec, scribbles(40), turned=True)
    tested = CharacterTasks.of(spec, scribbles(20, seed=2), turned=False)
    tester = Engine(spec, 10)
    before = measure(spec, spec.start(), tested, tester).accuracy.mean()
    *_, model = play(spec, learned, Engine(spec, spec.rounds.cohort))
    shares = measure(spec, model.published, tested, tester).accuracy
    after, doubt = shares.mean(), shares.std() / 10**0.5
    assert model.version == 12
    assert after > before + 0.1 + 2 * doubt
