"""The runs that a search judges cost what was reckoned, and are evaluated on tasks of their own."""

from pathlib import Path

import numpy as np

from localfleet.processes import PROJECT
from protocol.spec.spec import Spec
from tuning.runs import Data, SpecRun, TaskSets, play
from tuning.space import applied, bytes_most


def test_a_board_takes_no_more_bytes_than_was_reckoned() -> None:
    given = Spec.from_file(PROJECT / "specs" / "sine.toml")
    rounds = given.rounds.model_copy(update={"count": 6})
    spec = given.model_copy(update={"rounds": rounds})
    data = Data(spec=spec, path=None)
    for percent, down in ((1.0, 1.0), (10.0, 20.0), (100.0, 100.0)):
        other = applied(spec, {"percent": percent, "percent_down": down})
        *_, last = play(SpecRun(spec=other, data=data, boards=8, seed=0, query=10))
        assert last.is_last
        assert 0.7 * bytes_most(other) < last.bytes <= bytes_most(other)


def test_no_character_is_learned_and_evaluated_on(tmp_path: Path) -> None:
    """Each character is drawn in an ink of its own, so that it is known wherever it comes."""
    spec = Spec.from_file(PROJECT / "specs" / "omniglot.toml")
    images = np.ones((45, 20, 105, 105), np.bool_)  # Paper.
    corner = np.arange(49).reshape(7, 7)
    for character in range(45):
        images[character, :, :7, :7] = corner > character
    path = tmp_path / "characters.npz"
    np.savez_compressed(path, images=images)
    sets = TaskSets.of(Data(spec=spec, path=path))
    seen = []
    for tasks in (sets.learned, sets.validation, sets.test):
        x, _ = tasks.draw(np.random.default_rng(0), 200)
        seen.append(set(x.max(axis=2).ravel().tolist()))
    learned, validation, test = seen
    assert all(seen)
    assert not learned & validation
    assert not (learned | validation) & test
