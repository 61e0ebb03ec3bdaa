"""Tasks ask boards for what they can know, and a fleet gets better at them."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.lockstep import play
from localfleet.processes import PROJECT
from protocol import fixed
from protocol.spec import heap
from protocol.spec.spec import Spec
from simulation.engine.fixed import Engine
from simulation.errors import DataError
from simulation.exam import measure
from simulation.tasks import log, speech
from simulation.tasks.base import Skew
from simulation.tasks.characters import CharacterTasks
from simulation.tasks.log import Log
from simulation.tasks.logged import LogTasks
from simulation.tasks.omniglot import Omniglot
from simulation.tasks.speakers import SpeakerTasks


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
    needed = spec.heap_needed
    assert needed < heap.BOARD
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


# --- Boards that are not alike


def test_a_board_that_writes_one_alphabet_has_no_other_characters() -> None:
    ink = np.zeros((9, 4, 105, 105), np.bool_)
    names = tuple(
        f"{alphabet}/{i}" for alphabet in ("Greek", "Latin", "Tifinagh") for i in range(3)
    )
    data = Omniglot(ink, names)
    assert [alphabet.tolist() for alphabet in data.alphabets()] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    numbered = np.arange(9 * 4).reshape(9, 4, 1, 1)
    tasks = CharacterTasks(numbered, 3, 6, 6, alphabets=data.alphabets())
    for board in range(6):
        for round_ in range(3):
            x, _ = tasks.samples(board, round_, np.random.default_rng(round_))
            assert set(x[:, 0] // 4 // 3) == {board % 3}
    with pytest.raises(DataError, match="do not say their alphabets"):
        scribbles(3).alphabets()


def test_a_settled_board_hears_the_same_voices_in_all_rounds() -> None:
    keyword, speaker = np.repeat(np.arange(7), 12), np.tile(np.arange(6), 14)
    features = np.arange(len(keyword)).reshape(1, -1, 1)
    tasks = SpeakerTasks(
        features, keyword, speaker, voices=2, ways=5, support=25, query=25, settled=True
    )
    homes = set()
    for board in range(8):
        heard = [tasks.samples(board, 0, np.random.default_rng(seed)) for seed in range(3)]
        clips = np.concatenate([x[:, 0] for x, _ in heard])
        assert len(set(speaker[clips])) == 2
        assert (
            len({(keyword[c], way) for x, y in heard for (c,), (way,) in zip(x, y, strict=True)})
            == 5
        )
        support, query = (
            {c for x, _ in heard for (c,) in x[half]} for half in (np.s_[:25], np.s_[25:])
        )
        assert support.isdisjoint(query)
        homes.add(tuple(sorted(set(speaker[clips]))))
    assert len(homes) > 2


@pytest.mark.parametrize(("alpha", "least", "most"), [(0.05, 0.8, 1.0), (1000, 0.2, 0.3)])
def test_a_small_alpha_leaves_a_board_hardly_more_than_a_class(
    alpha: float, least: float, most: float
) -> None:
    numbered = np.arange(8 * 20).reshape(8, 20, 1, 1)
    tasks = CharacterTasks(numbered, 5, 100, 100, skew=Skew(alpha))
    shares = []
    for board in range(20):
        drawn = [tasks.samples(board, i, np.random.default_rng(i)) for i in range(5)]
        classes = np.concatenate([y[:, 0] for _, y in drawn])
        shares.append(np.bincount(classes, minlength=5).max() / len(classes))
        for x, _ in drawn:  # Drawings come again, but not in the other half.
            assert set(x[:100, 0]).isdisjoint(x[100:, 0])
    assert least < np.mean(shares) <= most
    # Whoever has much of a class has it in all rounds.
    assert (Skew(alpha).shares(3, 5) == Skew(alpha).shares(3, 5)).all()
    assert (Skew(alpha).shares(3, 5) != Skew(alpha).shares(4, 5)).any()


def record(tmp_path: Path, rows: str, spec: Spec) -> Log:
    file = tmp_path / "log.csv"
    file.write_text(rows)
    return log.load(file, spec)


PUMPS = """
fleet = "pumps"
[model]
inputs = 2
loss = "cross_entropy"
[[model.layers]]
outputs = 4
activation = "relu"
[[model.layers]]
outputs = 2
activation = "none"
local = true
[training]
support = 3
query = 2
rate_local = 0.1
rate_global = 0.1
percent = 50
[rounds]
count = 2
cohort = 2
deadline = 10
step_max = 1.0
percent_down = 50
"""


def pumps(boards: int, rows: int) -> str:
    lines = [
        f"pump-{b},{'idle' if i % 3 else 'runs'},{b},{i}"
        for b in range(boards)
        for i in range(rows)
    ]
    return "\n".join(["board,label,flow,heat", *lines])


def test_a_board_meets_what_one_of_the_users_boards_recorded(tmp_path: Path) -> None:
    spec = Spec.from_toml(PUMPS)
    data = record(tmp_path, pumps(3, 8), spec)
    assert data.boards == ("pump-0", "pump-1", "pump-2")
    own, mixed = LogTasks.of(spec, data), LogTasks.of(spec, data, mixed=True)
    unit = 1 << fixed.ACTIVATION_BITS
    for board in range(6):
        x, y = own.samples(board, 0, np.random.default_rng(board))
        assert x.shape == (5, 2)
        assert set(x[:, 0] // unit) == {board % 3}
        rows = (x[:, 1] // unit).tolist()
        assert len(set(rows)) == 5
        assert y[:, 0].tolist() == [0 if row % 3 else 1 for row in rows]  # idle, runs
    x, _ = mixed.samples(0, 0, np.random.default_rng(0))
    assert len(set(x[:, 0])) > 1
    x, y = LogTasks.of(spec, data, skew=Skew(0.01)).samples(0, 0, np.random.default_rng(0))
    assert len(set(y[:, 0])) == 1
    learned, tested = record(tmp_path, pumps(12, 8), spec).split(0.3)
    assert set(learned.boards) | set(tested.boards) == {f"pump-{i}" for i in range(12)}
    assert len(tested.boards) + len(learned.boards) == 12


def test_records_that_are_too_short_are_refused(tmp_path: Path) -> None:
    spec = Spec.from_toml(PUMPS)
    with pytest.raises(DataError, match=r"4 rows of pump-0; a round takes 5"):
        LogTasks.of(spec, record(tmp_path, pumps(1, 4), spec))
    with pytest.raises(DataError, match=r"one row of class 1"):
        LogTasks.of(
            spec,
            record(
                tmp_path,
                pumps(3, 3).replace("pump-2,idle", "pump-2,runs", 0).replace("runs", "idle", 2),
                spec,
            ),
            skew=Skew(1),
        )
    with pytest.raises(DataError, match="too few to hold some of them out"):
        record(tmp_path, pumps(1, 8), spec).split()


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
