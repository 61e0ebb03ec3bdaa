"""The client's examples take part in rounds as they stand there, with a sensor of the test's."""

from pathlib import Path

import pytest

from localfleet import processes
from localfleet.parts import Bits
from localfleet.processes import PROJECT
from tests.conftest import Broker
from tests.support.parts import compile_client, on_both_boards, real
from tests.support.pins import MACHINE

EXAMPLES = PROJECT / "micropython_client" / "examples"
SPEC = """
fleet = "pumps"
seed = 7
[model]
inputs = 8
loss = "mse"
layers = [
    { outputs = 9, activation = "relu" },
    { outputs = 1, activation = "none", local = true },
]
[training]
support = 5
query = 6
rate_local = 0.02
rate_global = 0.02
percent = 20
[rounds]
count = 2
cohort = 1
step_max = 1.0
percent_down = 40
deadline = 30
"""


@pytest.mark.real
@pytest.mark.parametrize("example", ["own_loop", "asyncio"])
@on_both_boards
def test_an_example_takes_part_in_rounds_and_does_its_other_work(
    broker: Broker, tmp_path: Path, bits: Bits, example: str
) -> None:
    """The alarm of one goes off, the light of the other blinks."""
    compile_client()
    (tmp_path / "spec.toml").write_text(SPEC)
    folder = tmp_path / "pump"
    folder.mkdir()
    (folder / "machine.py").write_text(MACHINE)
    settings: dict[str, object] = {"broker": f"127.0.0.1:{broker.port}", "fleet": "pumps"}
    main = EXAMPLES / example / "main.py"
    aggregator = processes.aggregator(
        tmp_path, tmp_path / "spec.toml", broker.port, "--exit-when-done"
    )
    board = real(lambda: processes.board(folder, "pump", bits, settings, main))
    with processes.stopping([aggregator, board]):
        aggregator.start()
        board.start()
        assert aggregator.process is not None
        assert aggregator.process.wait(30) == 0
        board.check()
    assert "round 2 of 2: 1 of 1 boards" in aggregator.log.read_text()
    assert "pin" in board.log.read_text()
