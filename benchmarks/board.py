"""`make bench-board`: what training costs on a Cortex-M0, in instructions, beside C and bytecode.

The emulated board counts instructions exactly, so a run gives the same figures again. Variants:

- bytecode: plain Python with floats
- viper: the client as it ships to boards that are no Cortex-M
- asm_thumb: the client as it ships to a Cortex-M
- c: the same client with its kernels in C, a native module (gcc -O2)

Writes `build/bench/board.json`: `kernels[name][variant]` in instructions per multiply-accumulate
of a layer with 8 outputs, `step[spec][variant]` in instructions per sample of a round, and of a
whole client (whole_client.py) in bytes `heap_peak[spec]`, what is in use at the end of a round, and
`heap_least[spec]`, the heap with which it gets there.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from localfleet import whole_client
from localfleet.emulator import Emulator, compiled_client
from localfleet.errors import LocalFleetError
from localfleet.natmod import build_native
from localfleet.processes import PROJECT
from protocol.spec.spec import Spec
from simulation.replay import make_case

Case = dict[str, Any]
ON_BOARD: Final = Path(__file__).parent / "on_board"
RESULT: Final = PROJECT / "build" / "bench" / "board.json"
SPECS: Final = ("sine", "omniglot", "keywords")
VARIANTS: Final = ("bytecode", "viper", "asm_thumb", "c")
KERNELS: Final = ("forward", "carry_back", "update")
SAMPLES: Final = 1
"""Of each phase that are measured for networks larger than sine's."""


def case_of(spec: Spec, samples: int) -> Case:
    """A round of that many samples a phase, random but like real ones."""
    rng = np.random.default_rng(0)
    count = 2 * samples
    settings = spec.training.model_copy(update={"support": samples, "query": samples})
    spec = spec.model_copy(update={"training": settings})
    base = spec.start()
    inputs = spec.layers[0].words_in
    if not spec.is_classifier:
        x = rng.uniform(-5, 5, (count, inputs))
        y = 3 * np.sin(x[:, :1] + 1)
    else:
        x = rng.uniform(0, 1, (count, inputs)) * (rng.uniform(0, 1, (count, inputs)) < 0.4)
        y = rng.integers(0, spec.layers[-1].outputs, count)
    case = make_case(spec, base, 7, x, y)
    # As bytes: lists take more room on a board than there is.
    for phase in ("support", "query"):
        case[phase] = [[np.array(x, "<f4").tobytes().hex(), y] for x, y in case[phase]]
    return {**case, "base": base.astype("<i2").tobytes()}


def client(variant: str, folder: Path) -> Path:
    """The compiled client with the kernels of a variant."""
    package = folder / "tinymetafed"
    shutil.copytree(compiled_client("cortex-m0"), package)
    thumb = package / "thumb.mpy"
    if variant != "asm_thumb":
        thumb.unlink()
    if variant == "c":
        shutil.copy(build_native(ON_BOARD / "ckernels.c", "cortex-m0"), thumb)
    return package


def run(variant: str, script: str, case: Case) -> list[dict[str, Any]]:
    """Run a script with the kernels of a variant; its JSON lines."""
    with Emulator("cortex-m0") as board, tempfile.TemporaryDirectory() as folder:
        if variant != "bytecode":
            board.add(client(variant, Path(folder)))
        board.add(ON_BOARD / script)
        if "base" in case:
            (board.folder / "base.bin").write_bytes(case["base"])
        board.write("case.json", json.dumps({k: v for k, v in case.items() if k != "base"}))
        return [json.loads(line) for line in board.run(script, "case.json", timeout=300)]


def measure() -> dict[str, Any]:
    """All figures, as the file has them.

    Raises:
        LocalFleetError: a part is missing, or a board failed.
    """
    kernels: dict[str, dict[str, float]] = {}
    step: dict[str, dict[str, float]] = {}
    heap_peak: dict[str, int] = {}
    heap_least: dict[str, int] = {}
    for name in SPECS:
        spec = Spec.from_file(PROJECT / "specs" / f"{name}.toml")
        case = case_of(spec, spec.training.support if name == "sine" else SAMPLES)
        proofs = []
        step[name] = {}
        for variant in VARIANTS:
            if variant == "bytecode":  # A sample takes about as long as another, and long it takes.
                few = {"plan": case["plan"], **{p: case[p][:1] for p in ("support", "query")}}
                counts, result = run(variant, "bytecode.py", few)
            else:
                counts, result = run(variant, "step.py", case)
            for kernel, instructions in counts["kernels"].items():
                kernels.setdefault(kernel, {})[variant] = instructions
            step[name][variant] = result["step"]
            if "proof" in result:  # Floats learn other weights.
                proofs.append(result["proof"])
        if any(proof != proofs[0] for proof in proofs):
            raise LocalFleetError(f"{name}: the variants learned different weights: {proofs}")
        with Emulator("cortex-m0") as board:
            board.add(compiled_client("cortex-m0"))
            taken = whole_client.run(board, spec)
            if taken.by_samples:
                raise LocalFleetError(f"{name}: training took {taken.by_samples} bytes of heap")
            heap_peak[name] = taken.peak
            heap_least[name] = whole_client.least_heap(board, spec)
    return {"kernels": kernels, "step": step, "heap_peak": heap_peak, "heap_least": heap_least}


def show(result: dict[str, Any]) -> None:
    """Print the figures."""
    console = Console(width=100)
    table = Table("instructions per multiply-accumulate", *VARIANTS)
    for name in KERNELS:
        row = result["kernels"][name]
        table.add_row(name, *(f"{row[variant]:.1f}" for variant in VARIANTS))
    console.print(table)
    table = Table("instructions per sample", *VARIANTS, "asm_thumb / c", "viper / c")
    for name, row in result["step"].items():
        table.add_row(
            name,
            *(f"{row[variant]:,.0f}" for variant in VARIANTS),
            f"{row['asm_thumb'] / row['c']:.2f}",
            f"{row['viper'] / row['c']:.2f}",
        )
    console.print(table)
    table = Table("bytes of heap", "in use after a round", "least")
    for name in result["step"]:
        table.add_row(name, *(f"{result[key][name]:,}" for key in ("heap_peak", "heap_least")))
    console.print(table)


def main() -> int:
    """Measure, print and write."""
    try:
        result = measure()
    except LocalFleetError as error:
        print(f"bench-board: {error}", file=sys.stderr)
        return 1
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
