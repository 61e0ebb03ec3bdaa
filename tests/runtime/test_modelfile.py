"""A model in a file: of any network, and what is read from a file that is damaged."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localfleet.processes import PROJECT
from protocol.spec.spec import Spec
from runtime.errors import ModelFileError
from runtime.modelfile import ModelFile
from tests.support.networks import random_spec
from tests.support.parts import mutated

SPEC = Spec.from_file(PROJECT / "specs" / "sine.toml")


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_a_model_of_any_network_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    spec = random_spec(rng)
    weights = rng.integers(-(2**15), 2**15, spec.global_count).astype(np.int16)
    model = ModelFile(spec, 7, 3, "then", "import", weights)
    path = tmp_path_factory.mktemp("model") / "model.npz"
    model.write(path)
    again = ModelFile.read(path)
    assert again.weights.tobytes() == weights.tobytes()
    assert (again.spec, again.lineage, again.version) == (spec, 7, 3)
    again.check_fits(spec.plan)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"layer0_weights": None}, "has no array 'layer0_weights'"),
        ({"spec": None}, "has no array 'spec'"),
        ({"spec": "{}"}, "its spec is none for this version"),
        ({"layer0_weights": np.zeros((32, 2))}, "layer0_weights is float64 of shape"),
        ({"layer0_weights": np.zeros((2, 32), np.int16)}, r"asks for int16.* of shape \(32, 2\)"),
        ({"lineage": "x"}, "not a model in .npz"),
    ],
)
def test_a_file_with_something_wrong_is_refused(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    path = tmp_path / "model.npz"
    ModelFile(SPEC, 1, 1, "then", "start", SPEC.start()).write(path)
    with np.load(path) as arrays:
        content = {**arrays, **changes}
    kept: dict[str, Any] = {name: value for name, value in content.items() if value is not None}
    np.savez(path, **kept)
    with pytest.raises(ModelFileError, match=complaint):
        ModelFile.read(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 but then", b"\x93NUMPY", b"[1, 2]"])
def test_a_file_that_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"not a model in \.npz"):
        ModelFile.read(path)
    with pytest.raises(ModelFileError, match="no such file"):
        ModelFile.read(tmp_path / "absent.npz")
    np.save(tmp_path / "alone.npy", SPEC.start())
    with pytest.raises(ModelFileError, match=r"not a model in \.npz"):
        ModelFile.read(tmp_path / "alone.npy")


def test_a_damaged_file_is_read_or_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / "model.npz"
    ModelFile(SPEC, 1, 1, "then", "start", SPEC.start()).write(path)
    whole = path.read_bytes()
    rejected: list[str] = []
    for _ in range(400):
        path.write_bytes(mutated(rng, whole))
        try:
            assert len(ModelFile.read(path).weights) == SPEC.global_count
        except ModelFileError as error:
            rejected.append(str(error))
    assert len(rejected) > 200
    assert all(str(path) in reason for reason in rejected)
