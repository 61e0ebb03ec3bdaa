"""Flower's full round, and its aggregation alone, on a model of the same size. Prints JSON.

Runs in the environment that `make bench-peers` makes, without any package of ours. The server is
`start_server`, Flower's leanest: gRPC on loopback, one process. Its clients are threads of a second
process; each gets 1,000 float32 parameters and sends as many back, untrained, with FedAvg.
"""

import json
import logging
import multiprocessing
import os
import signal
import socket
import statistics
import threading
import time
from typing import Any

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # Before Flower is imported: it would call home.

import flwr
import numpy as np
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
from flwr.compat.client.app import start_client
from flwr.compat.client.numpy_client import NumPyClient
from flwr.server import ServerConfig, start_server
from flwr.server.strategy import FedAvg

CLIENTS = 100
PARAMETERS = 1000
ROUNDS = 20
STEADY = 5
"""Rounds before the ones that count."""
SECONDS = 2.0
"""To aggregate again and again."""


class Echo(NumPyClient):
    """A client that does not train."""

    def get_parameters(self, config: dict[str, Any]) -> list[Any]:
        """The start."""
        return [np.zeros(PARAMETERS, np.float32)]

    def fit(self, parameters: list[Any], config: dict[str, Any]) -> tuple[list[Any], int, Any]:
        """A round."""
        return [parameters[0] + 1], 32, {}


class Timed(FedAvg):
    """FedAvg that notes when each round ends."""

    def __init__(self) -> None:
        super().__init__(
            fraction_fit=1,
            fraction_evaluate=0,
            min_fit_clients=CLIENTS,
            min_available_clients=CLIENTS,
        )
        self.ends: list[float] = []

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        """As FedAvg's."""
        aggregated = super().aggregate_fit(server_round, results, failures)
        if len(results) != CLIENTS or failures:
            raise SystemExit(f"round {server_round}: {len(results)} results, {failures}")
        self.ends.append(time.monotonic())
        return aggregated


def clients(address: str) -> None:
    """All clients, until the server ends."""
    logging.disable(logging.CRITICAL)
    settings = {"server_address": address, "client": Echo().to_client(), "insecure": True}
    threads = [threading.Thread(target=start_client, kwargs=settings) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def full_round() -> float:
    """Updates a second, in the median of the steady rounds."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    process = multiprocessing.get_context("spawn").Process(target=clients, args=(address,))
    process.start()
    strategy = Timed()
    start_server(server_address=address, config=ServerConfig(num_rounds=ROUNDS), strategy=strategy)
    process.join(10)
    process.kill()
    seconds = np.diff(strategy.ends)[STEADY:]
    return CLIENTS / statistics.median(seconds.tolist())


def aggregate() -> float:
    """Updates a second that FedAvg decodes and aggregates, without a network."""
    rng = np.random.default_rng(1)
    results: list[Any] = [
        (
            None,
            FitRes(
                Status(Code.OK, ""),
                ndarrays_to_parameters([rng.normal(size=PARAMETERS).astype(np.float32)]),
                32,
                {},
            ),
        )
        for _ in range(CLIENTS)
    ]
    strategy = FedAvg()
    times = []
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        begin = time.perf_counter()
        strategy.aggregate_fit(1, results, [])
        times.append(time.perf_counter() - begin)
    return CLIENTS / statistics.median(times)


if __name__ == "__main__":
    signal.alarm(120)
    logging.disable(logging.CRITICAL)
    figures = {"version": flwr.__version__, "round_per_s": full_round()}
    print(json.dumps(figures | {"aggregate_per_s": aggregate()}))
