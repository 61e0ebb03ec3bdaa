"""Every decoder of the host reads tens of thousands of inputs that are made to reach its corners.

The boards' decoders have the same done to them in tests/board/test_trusts_no_byte.py.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from localfleet.processes import PROJECT
from tests.faults.decoders import TARGETS, seeds
from tests.faults.ledger import FUZZED

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(0),
    pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has no wheel for this Python"),
]

RUNS = 50_000
SECONDS = 4
SOAK = 60 * float(os.environ.get("SOAK_MINUTES", "0"))


@pytest.mark.parametrize("target", TARGETS)
def test_fuzzed(
    tmp_path: Path, record_property: Callable[[str, object], None], target: str
) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for i, seed in enumerate(seeds(target)):
        (corpus / f"seed-{i}").write_bytes(seed)
    limits = [f"-max_total_time={max(SECONDS, int(SOAK / len(TARGETS)))}"]
    limits += [] if SOAK else [f"-runs={RUNS}", "-seed=1"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.faults.fuzz", target, corpus),
            *(f"-artifact_prefix={tmp_path}/", "-max_len=1500", "-timeout=10", *limits),
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    runs = re.search(r"^Done (\d+) runs", done.stderr, re.MULTILINE)
    assert runs is not None
    record_property(FUZZED, int(runs[1]))
