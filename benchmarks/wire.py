"""`make bench-wire`: bytes of an update, beside two plain codings and the entropy.

The tensors are those of depthwise-separable networks, whose many small tensors make a block's head
large: a 3x3 convolution of one channel, then twice a depthwise one and a 1x1. Entries lie anywhere,
each set as likely as any other; real ones lie closer together, which takes less. An update is one
sparse block here, without the message around it.

- bytes: of a sparse block, header and scales included, mean of 50 random sets of entries
- dense float32: every parameter
- naive sparse: MessagePack with a byte string of 16-bit indices and one of float32 values
- bound: log2 of the number of sets of so many entries, plus the bits of their values

Writes `build/bench/wire.json`: a list with these figures for each number of parameters, P and width
of values.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

import msgpack
import numpy as np
from rich.console import Console
from rich.table import Table

from protocol import sparse

RESULT: Final = Path(__file__).resolve().parent.parent / "build" / "bench" / "wire.json"
CHANNELS: Final = ((9, 20, 20), (24, 64, 112), (32, 120, 200))
"""Of each network: behind the convolution, behind the first and the second 1x1."""
PERCENTS: Final = (1, 5, 10, 20, 50)
SETS: Final = 50
ALLOWED: Final = 1.12
"""Times the bound, where P is at least 5."""


def tensors_of(first: int, second: int, third: int) -> tuple[int, ...]:
    """Sizes of a network's tensors, biases included."""
    depthwise = 9 + 1
    return (
        first * (9 + 1),
        first * depthwise,
        second * (first + 1),
        second * depthwise,
        third * (second + 1),
    )


def bound(parameters: int, entries: int, value_bits: int) -> int:
    """Bytes below which no code for all sets of so many entries can stay in the mean."""
    return math.ceil((math.log2(math.comb(parameters, entries)) + entries * value_bits) / 8)


def naive_sparse(entries: int) -> int:
    """Bytes of indices and values as they come."""
    indices = np.arange(entries, dtype="<u2")
    values = np.zeros(entries, "<f4")
    return len(msgpack.packb([indices.tobytes(), values.tobytes()]))


def sizes(tensors: tuple[int, ...], entries: int, value_bits: int) -> list[int]:
    """Bytes of the blocks of random sets of entries."""
    rng = np.random.default_rng(entries)
    found = []
    for _ in range(SETS):
        changes = np.rint(rng.laplace(0, 100, sum(tensors))).astype(np.int64)
        indices = np.sort(rng.choice(len(changes), entries, replace=False))
        found.append(len(sparse.encode(changes, indices, tensors, value_bits)))
    return found


def measure() -> tuple[list[dict[str, Any]], list[int]]:
    """The figures as the file has them, and the largest block of each."""
    rows = []
    worst = []
    for channels in CHANNELS:
        tensors = tensors_of(*channels)
        parameters = sum(tensors)
        for percent in PERCENTS:
            entries = sparse.top_count(parameters, percent)
            for value_bits in sparse.VALUE_BITS:
                blocks = sizes(tensors, entries, value_bits)
                worst.append(max(blocks))
                rows.append(
                    {
                        "parameters": parameters,
                        "percent": percent,
                        "value_bits": value_bits,
                        "bytes": round(sum(blocks) / len(blocks), 1),
                        "dense_float32": 4 * parameters,
                        "naive_sparse": naive_sparse(entries),
                        "bound": bound(parameters, entries, value_bits),
                    }
                )
    return rows, worst


def show(rows: list[dict[str, Any]], worst: list[int]) -> None:
    """Print the figures."""
    console = Console()
    table = Table(title="bytes of an update")
    for head in (
        "params",
        "P",
        "value bits",
        "dense",
        "naive sparse",
        "sparse block",
        "bound",
        "block / bound",
        "worst / bound",
    ):
        table.add_column(head, justify="right", min_width=7 if head == "dense" else None)
    missed = 0
    for row, most in zip(rows, worst, strict=True):
        ratio, worst_ratio = row["bytes"] / row["bound"], most / row["bound"]
        missed += row["percent"] >= 5 and worst_ratio > ALLOWED
        table.add_row(
            f"{row['parameters']:,}",
            f"{row['percent']} %",
            f"{row['value_bits']}",
            f"{row['dense_float32']:,}",
            f"{row['naive_sparse']:,}",
            f"{row['bytes']:,.{1 if row['bytes'] < 1000 else 0}f}",
            f"{row['bound']:,}",
            f"{ratio:.3f}",
            f"{worst_ratio:.3f}",
            end_section=row["value_bits"] == sparse.VALUE_BITS[-1],
        )
    console.print(table)
    console.print(f"P of 5 and more: {missed} rows have a block above {ALLOWED} times the bound")


def main() -> None:
    """Measure, print and write."""
    rows, worst = measure()
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    show(rows, worst)


if __name__ == "__main__":
    main()
