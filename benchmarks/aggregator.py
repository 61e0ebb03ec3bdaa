"""`make bench-aggregator`: updates a second, beside bare paho and Flower, all in one run.

- paho: a paho subscriber that counts QoS 1 messages and does nothing else (`counter.py`)
- aggregator: the whole aggregator, from the socket to the receipt, with its journal on the disk
- decode and sum: what of that is arithmetic, alone
- Flower: its full round over gRPC, its aggregation alone (`flower.py`, after `make bench-peers`)

The first two hear the same sender through a broker as deployed: `tinymetafed load` with 10,000
boards on 8 connections, which send all of a round's updates at once; the next round is announced
when the last one is counted, or closed. 1,000 parameters, P = 10, 8-bit values. They take turns,
and the medians count.

Writes `build/bench/aggregator.json`.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from localfleet import load, processes
from localfleet.processes import PROJECT, Program
from protocol import sparse
from protocol.spec.spec import Spec
from rounds.sums import PartialSum
from runtime.transport import GROUP

FOLDER: Final = PROJECT / "build" / "bench" / "aggregator"
RESULT: Final = FOLDER.with_suffix(".json")
PEERS: Final = PROJECT / ".cache" / "peers" / "bin" / "python"
SPEC: Final = """
fleet = "bench"
[model]
inputs = 24
loss = "mse"
layers = [
    {{ outputs = 40, activation = "relu" }},
    {{ outputs = 1, activation = "none", local = true }},
]
[training]
support = 32
query = 32
rate_local = 0.02
rate_global = 0.01
percent = 10
[rounds]
count = {rounds}
cohort = {boards}
deadline = 60
step_max = 1.0
percent_down = 20
"""
MANY, FEW = 10_000, 100
"""Boards."""
ROUNDS: Final = 5
CONNECTIONS: Final = 8
TURNS: Final = 3
WANTED: Final = {"aggregator / paho": 0.6, "aggregator / Flower's round": 10, "memory": 1.2}
"""Promises: at least, at least, at most."""


def write_spec(boards: int, rounds: int) -> Path:
    """The spec of a run."""
    path = FOLDER / f"spec-{boards}-{rounds}.toml"
    path.write_text(SPEC.format(boards=boards, rounds=rounds), encoding="utf-8")
    return path


def play(subscriber: str, boards: int, rounds: int) -> tuple[dict[str, Any], float]:
    """Play boards against a subscriber: what the load says, and the subscriber's peak memory in MB.

    Args:
        subscriber: paho or aggregator.
        boards: how many.
        rounds: how many.
    """
    folder = FOLDER / f"{subscriber}-{boards}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    spec = write_spec(boards, rounds)
    port = processes.free_port()
    broker = processes.broker(folder / "broker", port)
    if subscriber == "paho":
        words = [str(spec), str(port), str(boards), str(rounds)]
        command = [sys.executable, "-m", "benchmarks.counter", *words]
        program = Program(subscriber, command, folder / "log", folder=PROJECT)
    else:
        program = processes.aggregator(folder, spec, port)
    with processes.stopping([broker, program]):
        processes.start_broker(broker, port)
        program.start()
        words = f"--fleet bench --broker 127.0.0.1:{port} --boards {boards} --json".split()
        words += f"--rounds {rounds} --connections {CONNECTIONS}".split()
        done = subprocess.run(
            [Path(sys.executable).with_name("tinymetafed"), "load", *words],
            stdout=subprocess.PIPE,
            check=True,
        )
        program.check()
        assert program.process is not None  # noqa: S101 - it has been started
        status = Path(f"/proc/{program.process.pid}/status").read_text(encoding="ascii")
    result = json.loads(done.stdout)
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    if result["acknowledged"] < boards * rounds or result["resent"]:
        print(f"{subscriber}: not an even run: {result}", file=sys.stderr)
    return result, int(peak) / 1000


def decode_and_sum() -> float:
    """Updates a second that are decoded and summed in groups, as the aggregator does."""
    spec = Spec.from_file(write_spec(MANY, ROUNDS))
    updates = load.updates(spec.plan, MANY)
    groups = [updates[i : i + GROUP] for i in range(0, MANY, GROUP)]
    times = []
    for _ in range(TURNS):
        begin = time.perf_counter()
        total = PartialSum(spec.global_count)
        for group in groups:
            blocks = sparse.decode_all([update.changes for update in group], spec.tensors)
            for update, block in zip(group, blocks, strict=True):
                assert isinstance(block, sparse.Sparse)  # noqa: S101 - they are our own
                total.add(update, block)
        times.append(time.perf_counter() - begin)
    return MANY / statistics.median(times)


def flower() -> dict[str, Any]:
    """Flower's figures; empty where it is not installed."""
    if not PEERS.exists():
        return {}
    script = Path(__file__).with_name("flower.py")
    done = subprocess.run([PEERS, script], stdout=subprocess.PIPE, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure() -> dict[str, Any]:
    """All figures."""
    rates: dict[str, list[float]] = {"paho": [], "aggregator": []}
    peaks = []
    for turn in range(TURNS):
        for subscriber, found in rates.items():
            result, peak = play(subscriber, MANY, ROUNDS)
            found.append(MANY * ROUNDS / result["seconds"])
            print(f"turn {turn + 1}: {subscriber} {found[-1]:,.0f}/s, {peak:.1f} MB", flush=True)
            if subscriber == "aggregator":
                peaks.append(peak)
    _, few = play("aggregator", FEW, ROUNDS * MANY // FEW)
    peer = flower()
    return {
        "paho_qos1_per_s": round(statistics.median(rates["paho"])),
        "aggregator_per_s": round(statistics.median(rates["aggregator"])),
        "decode_sum_per_s": round(decode_and_sum()),
        "rss_mb_100": few,
        "rss_mb_10000": max(peaks),
        "flower_round_per_s": round(peer["round_per_s"]) if peer else None,
        "flower_aggregate_per_s": round(peer["aggregate_per_s"]) if peer else None,
        "flower_version": peer.get("version"),
        "turns": {name: [round(rate) for rate in found] for name, found in rates.items()},
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 1),
    }


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """What does not depend on the machine."""
    mine = figures["aggregator_per_s"]
    found = {
        "aggregator / paho": mine / figures["paho_qos1_per_s"],
        "memory": figures["rss_mb_10000"] / figures["rss_mb_100"],
    }
    if figures["flower_round_per_s"]:
        found["aggregator / Flower's round"] = mine / figures["flower_round_per_s"]
        found["decode and sum / Flower's"] = (
            figures["decode_sum_per_s"] / figures["flower_aggregate_per_s"]
        )
    return found


def show(figures: dict[str, Any]) -> None:
    """Print the figures, and the ratios beside what was promised."""
    table = Table("figure", "value", title="updates a second, and memory")
    for name, value in figures.items():
        shown = f"{value:,}" if isinstance(value, int | float) else str(value or "make bench-peers")
        table.add_row(name, shown)
    console = Console()
    console.print(table)
    for name, ratio in ratios(figures).items():
        wanted = WANTED.get(name)
        word = "at most" if name == "memory" else "at least"
        console.print(f"{name}: {ratio:.2f}" + (f" (wanted: {word} {wanted})" if wanted else ""))


def main() -> None:
    """Measure, print and write."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    figures = measure()
    RESULT.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    show(figures)


if __name__ == "__main__":
    main()
