"""The progress message: what the aggregator writes is what whoever watches reads."""

import json

import pytest

from protocol.errors import ProgressError
from protocol.progress import Progress

PROGRESS = Progress(
    state="collecting",
    round=7,
    rounds=300,
    lineage="0badcafe",
    version=7,
    canary_version=8,
    loss=0.25,
    support_loss=1.5,
    accuracy=None,
    accepted=56,
    rejected={"stale": 2},
    bytes_up=1000,
    bytes_down=2000,
    awake=8,
    invited=8,
    answered=3,
    empty_deadlines=0,
    degraded_rounds=0,
)


def test_it_arrives_as_it_was_said() -> None:
    assert Progress.parse(PROGRESS.model_dump_json()) == PROGRESS


def test_what_a_newer_aggregator_adds_is_passed_over() -> None:
    newer = json.loads(PROGRESS.model_dump_json()) | {"sites": 3}
    assert Progress.parse(json.dumps(newer)) == PROGRESS


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "Invalid JSON"),
        (b"[1]", "object"),
        (b'{"state": "done"}', "round: Field required"),
        (PROGRESS.model_dump_json().replace('"round":7', '"round":"many"'), "round: .*integer"),
    ],
)
def test_anything_else_is_refused_with_the_reason(payload: bytes | str, reason: str) -> None:
    with pytest.raises(ProgressError, match=f"no progress message of this version: .*{reason}"):
        Progress.parse(payload)
