"""The golden vectors hold host and boards together: whoever changes a format changes these files.

The host's half: the code makes exactly the committed files, and reads them. The board's half: the
shipped client, on a 64-bit and a 32-bit interpreter, writes and reads the same bytes.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localfleet.parts import Bits
from localfleet.processes import PROJECT
from protocol import cohort, fixed, messages, sparse, topics
from tests.support.parts import GOLDEN, on_both_boards, run_board

NAMES = ["arithmetic", "hashes", "messages", "sparse", "speech"]


def vectors(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return found


def test_the_hosts_code_makes_the_committed_files(tmp_path: Path) -> None:
    script = PROJECT / "tools" / "golden.py"
    subprocess.run([sys.executable, script, "--output", tmp_path], check=True)
    assert sorted(file.stem for file in GOLDEN.glob("*.json")) == NAMES
    for name in NAMES:
        made = (tmp_path / f"{name}.json").read_text(encoding="utf-8")
        committed = (GOLDEN / f"{name}.json").read_text(encoding="utf-8")
        assert made == committed, f"{name}.json: if that is meant, run tools/golden.py"


def test_the_files_stay_small() -> None:
    assert sum(file.stat().st_size for file in GOLDEN.iterdir()) < 300_000


@pytest.mark.parametrize("vector", vectors("messages"), ids=lambda vector: vector["name"])
def test_the_host_reads_each_message(vector: dict[str, Any]) -> None:
    kind = getattr(messages, vector["message"])
    forms = [vector["bytes"], *([vector["board_bytes"]] if "board_bytes" in vector else [])]
    for form in forms:
        message = kind.unpack(bytes.fromhex(form))
        for name, value in vector["fields"].items():
            found = getattr(message, name)
            if isinstance(found, bytes):
                assert found.hex() == value
            else:
                assert json.loads(json.dumps(found)) == value


@pytest.mark.parametrize("vector", vectors("sparse"), ids=lambda vector: vector["name"])
def test_the_host_reads_each_block(vector: dict[str, Any]) -> None:
    decoded = sparse.decode(bytes.fromhex(vector["block"]), vector["tensors"])
    changes = np.clip(decoded.changes, fixed.WEIGHT_MIN, fixed.WEIGHT_MAX)
    found = [[int(i), int(c)] for i, c in zip(decoded.indices, changes, strict=True) if c]
    assert found == vector["applied"]


def test_every_coding_is_among_the_blocks() -> None:
    codings = [bytes.fromhex(vector["block"])[0] for vector in vectors("sparse")]
    assert {coding & 15 for coding in codings} >= {0, 1, 2, 3, 15}
    assert {coding >> 4 for coding in codings} == {0, 1, 2, 4, 5, 6}  # Widths, and inverted.


def test_the_hashes_are_the_published_ones() -> None:
    # draft-eastlake-fnv, test vectors of the 32-bit FNV-1a.
    assert fixed.fnv1a("") == 0x811C9DC5
    assert fixed.fnv1a("a") == 0xE40C292C
    assert fixed.fnv1a("foobar") == 0xBF9CF968
    # Everything that hashes a name agrees with it.
    assert topics.shard_of("foobar") == 0xBF9CF968 % topics.SHARDS
    assert cohort.ticket("foobar", 1) != cohort.ticket("foobar", 2)


# --- The board's half


@pytest.mark.real
@on_both_boards
def test_a_board_writes_and_reads_the_same_blocks(bits: Bits) -> None:
    answers = run_board("golden.py", bits, "sparse", GOLDEN)
    for vector, answer in zip(vectors("sparse"), answers, strict=True):
        expected = {"block": vector["block"], "applied": vector["applied"]}
        assert answer == expected, vector["name"]


@pytest.mark.real
@on_both_boards
def test_a_board_writes_and_reads_the_same_messages(bits: Bits) -> None:
    answers = run_board("golden.py", bits, "messages", GOLDEN)
    for vector, answer in zip(vectors("messages"), answers, strict=True):
        expected = vector.get("board_bytes") or list(vector["fields"].values())
        assert answer == expected, vector["name"]


@pytest.mark.real
@on_both_boards
def test_a_board_hashes_and_converts_alike(bits: Bits) -> None:
    answers = run_board("golden.py", bits, "hashes", GOLDEN)
    unanswered = set()
    for vector, answer in zip(vectors("hashes"), answers, strict=True):
        if answer is None:
            unanswered.add(vector["name"])
        else:
            assert answer == [value for _, value in vector["cases"]], vector["name"]
    assert unanswered == {"exp_of_minus", "log_of"}  # On a board they are within cross_entropy.


@pytest.mark.real
@on_both_boards
def test_a_board_trains_alike(bits: Bits) -> None:
    answers = run_board("replay.py", bits, GOLDEN / "arithmetic.json")
    for vector, answer in zip(vectors("arithmetic"), answers, strict=True):
        assert answer == vector["expected"], vector["name"]
