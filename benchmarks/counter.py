"""Bare paho: a subscriber that counts a fleet's updates and does nothing else.

It stands in the aggregator's place: it announces a round, and the next one once it has counted an
update of each board. `python -m benchmarks.counter SPEC PORT BOARDS ROUNDS`.
"""

import sys
from pathlib import Path

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from protocol.cohort import EVERYONE
from protocol.messages import Round
from protocol.spec.spec import Spec
from protocol.topics import Topics


def main(spec_file: str, port: str, boards: str, rounds: str) -> None:
    """Count until all rounds are over."""
    spec = Spec.from_file(Path(spec_file))
    topics = Topics(spec.fleet)
    in_a_round, all_of_them = int(boards), int(boards) * int(rounds)
    counted = 0

    def announce(round_: int) -> None:
        announced = Round(
            lineage=spec.lineage,
            round=round_,
            version=round_,
            ticket_limit=EVERYONE,
            deadline=60_000,
            chosen=b"",
            max_age=0,
            canary_version=0,
            canary_share=0,
        )
        client.publish(topics.round, announced.pack(), 1, retain=True)

    def count(_client: Client, _data: object, _message: MQTTMessage) -> None:
        nonlocal counted
        counted += 1
        if counted == all_of_them:
            client.publish(topics.round, b"", 1, retain=True)
        elif counted % in_a_round == 0:
            announce(counted // in_a_round)

    client = Client(CallbackAPIVersion.VERSION2)
    client.on_message = count
    client.connect("127.0.0.1", int(port))
    client.subscribe(topics.all_updates, 1)
    client.publish(topics.plan, spec.plan.pack(), 1, retain=True)
    announce(0)
    client.loop_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
