"""A topic says whose it is, both ways."""

import pytest

from protocol.topics import NAME, SHARDS, Topics, shard_of

DEMO = Topics("demo")


def test_every_topic_lies_below_the_fleets_root() -> None:
    topics = [DEMO.plan, DEMO.round, DEMO.delta, DEMO.progress, DEMO.all_updates, DEMO.all_states]
    topics += [DEMO.full(0), DEMO.receipt(63), DEMO.up("b"), DEMO.state("b"), DEMO.event("b")]
    assert all(topic.startswith("tmf/v1/demo/") for topic in topics)
    assert len(set(topics)) == len(topics)


def test_the_boards_spelling_is_the_documented_one() -> None:
    # What a board writes by hand in micropython_client/tinymetafed/config.py.
    assert DEMO.up("board-00") == "tmf/v1/demo/up/34/board-00"
    assert DEMO.receipt(34) == "tmf/v1/demo/receipt/34"
    assert DEMO.state("board-00") == "tmf/v1/demo/board/board-00/state"
    assert DEMO.full("+") == "tmf/v1/demo/model/full/+"
    assert DEMO.canary("+") == "tmf/v1/demo/model/canary/+"


def test_an_update_s_topic_tells_its_shard_and_board() -> None:
    assert DEMO.board_of_update(DEMO.up("board-00")) == (34, "board-00")
    assert DEMO.board_of_state(DEMO.state("board-00")) == "board-00"


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "tmf/v1/demo",
        "tmf/v1/other/up/34/board-00",
        "tmf/v1/demo/up/34",
        "tmf/v1/demo/up/34/board-00/more",
        "tmf/v1/demo/up/-1/board-00",
        "tmf/v1/demo/up/x/board-00",
        "tmf/v1/demo/up//board-00",
        "tmf/v1/demo/up/" + "9" * 5000 + "/board-00",
        "tmf/v1/demo/board/board-00/cmd",
        "tmf/v1/demo/board//x/state",
    ],
)
def test_another_topic_tells_nothing(topic: str) -> None:
    assert DEMO.board_of_update(topic) is None
    assert DEMO.board_of_state(topic) is None


def test_shards_share_the_boards() -> None:
    # A worker owns some shards: each must get about its part, also of names that count up.
    counts = [0] * SHARDS
    for number in range(6400):
        counts[shard_of(f"board-{number:04}")] += 1
    assert min(counts) > 50
    assert max(counts) < 200


@pytest.mark.parametrize("name", ["a", "x" * 32, "Board_1.of-2", "..", "0"])
def test_a_name_can_be(name: str) -> None:
    assert NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", "x" * 33, "a/b", "a b", "+", "#", "$SYS", "a\n", "ä", "a\0"])
def test_a_name_cannot_be(name: str) -> None:
    assert not NAME.fullmatch(name)
