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


@dataclass(frozen=True)
class Stored:
    """A batch learner of a shipped spec."""

    network: str
    samples: int
    """That it stores."""

    @property
    def spec(self) -> Spec:
        """The shipped one."""
        return Spec.from_file(shipped("specs") / f"{self.network}.toml")


def rounds_samples(network: str) -> int:
    """Support and query samples of a round."""
    training = Stored(network, 0).spec.training
    return training.support + training.query


def measure(wanted: Stored) -> Outcome:
    """Let an emulated board learn from a batch, and a whole client play a round beside its arrays.

    Returns:
        ``free``, bytes of heap of the empty board; ``online``, what a whole client of the shipped
        kind has in use after a round; ``samples`` and ``taken``, what the stored samples alone, and
        with the gradient, take, or None where the network itself leaves too little for them; and
        ``fits``, whether a whole client plays a round beside them. Where there is no emulator, only
        ``missing``, what it wants.
    """
    try:
        with Emulator("cortex-m0") as board:
            board.add(compiled_client("cortex-m0"))
            board.write("free.py", "import gc\ngc.collect()\nprint(gc.mem_free())\n")
            free = int(board.run("free.py")[0])
            online = whole_client.run(board, wanted.spec).peak
    except (LocalFleetError, FileNotFoundError) as error:
        return {"missing": str(error).splitlines()[0]}
    batch = run_batch(wanted)
    if batch is None:
        taken = {"samples": None, "taken": None, "fits": False}
    else:
        left = free - batch["taken"]
        taken = {
            "samples": batch["samples"],
            "taken": batch["taken"],
            "fits": left > 0 and _plays(wanted.spec, left),
        }
    return {"free": free, "online": online, **taken}


def run_batch(wanted: Stored) -> dict[str, Any] | None:
    """What the board printed, see localfleet/on_board/batch.py; None where its heap did not do.

    Raises:
        LocalFleetError: something else was wrong.
    """
    spec = wanted.spec
    x, y = given(spec, wanted.samples)
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
            lines = board.run("batch.mpy", "case.json", str(wanted.samples))
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
