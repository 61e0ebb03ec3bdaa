"""What storing samples and learning from batches takes on an emulated Cortex-M0, beside online."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from localfleet import whole_client
from localfleet.emulator import Emulator, compiled_client
from localfleet.errors import LocalFleetError, ProcessError
from protocol.fixed import to_activation
from protocol.messages import Plan
from protocol.spec.spec import Spec
from runtime.shipped import shipped

if TYPE_CHECKING:
    from experiments.harness.study import Outcome
    from protocol.fixed import Words

NETWORKS: Final = ("sine", "omniglot", "keywords")
SEED: Final = 7


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """A batch learner of a shipped spec."""

    network: str
    stored: int
    """Samples."""

    @property
    def spec(self) -> Spec:
        """The shipped one."""
        return shipped_spec(self.network)


def shipped_spec(network: str) -> Spec:
    """The spec of this name."""
    return Spec.from_file(shipped("specs") / f"{network}.toml")


def jobs() -> list[BatchJob]:
    """Batches of 8 and of 32 samples, and of all of a round, of each network."""
    wanted = []
    for network in NETWORKS:
        training = shipped_spec(network).training
        sizes = (8, 32, training.support + training.query)
        wanted += [BatchJob(network=network, stored=stored) for stored in sizes]
    return wanted


def measure(job: BatchJob) -> Outcome:
    """Let an emulated board learn from a batch, and a whole client play a round beside its arrays.

    Returns:
        The fields of :class:`experiments.online.result.Heap`; where there is no emulator, only
        ``missing``, what it wants.
    """
    try:
        with Emulator("cortex-m0") as board:
            board.add(compiled_client("cortex-m0"))
            board.write("free.py", "import gc\ngc.collect()\nprint(gc.mem_free())\n")
            free = int(board.run("free.py")[0])
            online = whole_client.run(board, job.spec).peak
    except (LocalFleetError, FileNotFoundError) as error:
        return {"missing": str(error).splitlines()[0]}
    batch = run_batch(job)
    if batch is None:
        arrays = {"samples": None, "arrays": None, "fits": False}
    else:
        left = free - batch["taken"]
        arrays = {
            "samples": batch["samples"],
            "arrays": batch["taken"],
            "fits": left > 0 and _plays(job.spec, left),
        }
    return {"free": free, "online": online, **arrays}


def run_batch(job: BatchJob) -> dict[str, Any] | None:
    """What the board printed, see localfleet/on_board/batch.py; None where its heap did not do.

    Raises:
        LocalFleetError: something else was wrong.
    """
    spec = job.spec
    x, y = given(spec, job.stored)
    plan = {field.name: getattr(spec.plan, field.name) for field in fields(Plan)}
    with Emulator("cortex-m0") as board:
        board.add(compiled_client("cortex-m0"))
        source = (whole_client.ON_BOARD / "batch.py").read_text(encoding="utf-8")
        board.compile("batch.mpy", source)
        (board.folder / "base.bin").write_bytes(spec.start().astype("<i2").tobytes())
        board.write("case.json", json.dumps({"plan": plan, "seed": SEED}))
        (board.folder / "x.bin").write_bytes(x.astype("<i2").tobytes())
        labels = y.astype(np.uint8 if spec.is_classifier else "<i2")
        (board.folder / "y.bin").write_bytes(labels.tobytes())
        try:
            lines = board.run("batch.mpy", "case.json", str(job.stored))
        except ProcessError as error:
            if "MemoryError" in str(error):
                return None
            raise
    printed: dict[str, Any] = json.loads(lines[-1])
    return printed


def given(spec: Spec, count: int) -> tuple[Words, Words]:
    """Samples at random; shapes (count, inputs), and (count, outputs) or of classes (count, 1)."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (count, spec.layers[0].words_in))
    outputs = spec.layers[-1].outputs
    if not spec.is_classifier:
        return to_activation(x), to_activation(rng.uniform(-1, 1, (count, outputs)))
    return to_activation(x), rng.integers(0, outputs, (count, 1))


def _plays(spec: Spec, heap: int) -> bool:
    """Whether a client that is known to work plays a round with so many bytes of heap."""
    with Emulator("cortex-m0") as board:
        board.add(compiled_client("cortex-m0"))
        try:
            whole_client.run(board, spec, heap)
        except ProcessError:
            return False
    return True
