"""The connection to a broker that lets us in, but not do all that we want."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from localfleet import parts
from localfleet.errors import PartsError
from runtime.settings import Address, Connection
from runtime.transport import Transport
from tests.conftest import Broker
from tests.support.parts import real

PATIENCE = 20.0
UPDATES, COMMAND, COUNT = "tmf/v1/demo/up/+/+", "tmf/v1/demo/command", "$SYS/broker/version"
ACCESS = {
    "publishClientSend": True,
    "publishClientReceive": True,
    "subscribe": False,
    "unsubscribe": True,
}
ROLE: Mapping[str, object] = {
    "rolename": "reader",
    "acls": [{"acltype": "subscribePattern", "topic": "tmf/#", "priority": 0, "allow": True}],
}


def dynamic_security() -> Path:
    """Mosquitto's plugin that says who may do what."""
    root = Path(parts.mosquitto()[-1]).resolve().parents[2]  # Of usr/sbin/mosquitto.
    plugin = next(root.glob("usr/lib/**/mosquitto_dynamic_security.so"), None)
    if plugin is None:
        raise PartsError("this Mosquitto comes without its dynamic security plugin")
    return plugin


def guarded(broker: Broker, *roles: Mapping[str, object]) -> Broker:
    """With Mosquitto's dynamic security plugin, which refuses a SUBSCRIBE in its answer.

    Args:
        broker: not started yet.
        roles: what anybody may do.
    """
    rules = {
        "defaultACLAccess": ACCESS,
        "anonymousGroup": "anybody",
        "groups": [
            {"groupname": "anybody", "roles": [{"rolename": role["rolename"]} for role in roles]}
        ],
        "roles": roles,
    }
    file = broker.folder / "rules.json"
    file.write_text(json.dumps(rules))
    config = broker.folder / "mosquitto.conf"
    text = f"\nplugin {real(dynamic_security)}\nplugin_opt_config_file {file}\n"
    config.write_text(config.read_text() + text)
    return broker


def exchange_until(transport: Transport, condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends
        transport.exchange(0.1)


@pytest.mark.real
def test_a_refused_subscription_is_an_error_that_names_the_topics(
    absent_broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    guarded(absent_broker).start()
    connection = Connection(broker=Address("127.0.0.1", absent_broker.port))
    transport = Transport(connection, "tmf-test", [UPDATES, COMMAND], [COUNT])
    with caplog.at_level(logging.ERROR):
        exchange_until(transport, lambda: len(transport.refused) == 2)
    assert transport.refused == {UPDATES, COMMAND}
    (line,) = caplog.messages
    assert f"does not let us read {COMMAND}, {UPDATES}: check TMF_USERNAME" in line
    transport.close()


@pytest.mark.real
def test_what_we_can_do_without_may_be_refused(absent_broker: Broker) -> None:
    """As other brokers refuse Mosquitto's own topics."""
    guarded(absent_broker, ROLE).start()
    connection = Connection(broker=Address("127.0.0.1", absent_broker.port))
    transport = Transport(connection, "tmf-test", [COMMAND], [COUNT])
    exchange_until(transport, lambda: transport.connected)
    exchange_until(transport, lambda: not transport._wanted)
    assert transport.refused == frozenset()
    transport.close()
