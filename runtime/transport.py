"""The one narrow door to MQTT: paho-mqtt, driven from the aggregator's own loop, without threads.

Everything that can be read is read first, so that the journal commits it as one group; only then is
it acknowledged. MQTT 3.1.1 with a persistent session: what arrives while the aggregator is away, or
was not acknowledged when it died, the broker sends again.
"""

import logging
import select
import socket
import time
from typing import Final

from paho.mqtt.client import Client, ConnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from protocol.mqtt import Message
from runtime.settings import Connection
from runtime.wire import Wire

log = logging.getLogger(__name__)

KEEPALIVE: Final = 30
CONNECT_SECONDS: Final = 1.0
"""For one attempt; a stop may have to wait for it."""
ANSWER_SECONDS: Final = 5.0
"""From the connection to the broker's word that it accepts us."""
BACKOFF_FIRST: Final = 0.5
BACKOFF_MOST: Final = 15.0
GROUP: Final = 1000
"""Most messages that one exchange hands out, but for those read with the last one ..."""
GROUP_BYTES: Final = 2**22
"""... and most bytes of payload: large garbage must not fill the memory."""
FLUSH_SECONDS: Final = 0.5
NO_BROKER: Final = "answers, but not as an MQTT broker does: is --broker right?"


class _Client(Client):
    """paho, with a :class:`Wire` in the place of its socket."""

    wire: Wire | None = None

    def _create_socket(self) -> Wire:
        sock = super()._create_socket()
        assert isinstance(sock, socket.socket)  # noqa: S101 - also with TLS
        self.wire = Wire(sock)
        return self.wire


class Transport:
    """A connection to the broker that comes back by itself.

    Args:
        connection: where the broker is, which need not be there yet, and who we are.
        client_id: fixed, for the broker keeps the session under it.
        subscriptions: topic filters, each subscribed with QoS 1.
        optional: the same of what a broker may keep from us.
    """

    def __init__(
        self,
        connection: Connection,
        client_id: str,
        subscriptions: list[str],
        optional: list[str],
    ) -> None:
        self.connections = 0
        """How often the broker has accepted us."""
        self.connected = False
        self.read_at = 0.0
        """When, on time.monotonic()'s clock, the last exchange began to read messages."""
        self._broker = connection.broker
        self.refused: frozenset[str] = frozenset()
        """Topic filters that the broker does not let us read, and that we cannot do without."""
        self._subscriptions = subscriptions
        self._optional = optional
        self._subscribed = False
        self._wanted: dict[int, list[str]] = {}  # Filters, by the packet that asked for them.
        self._ask_again = 0.0  # When what is refused is asked for again.
        self._unconfirmed: set[int] = set()  # Packets that we sent with QoS 1.
        self._said = ""
        self._backoff = BACKOFF_FIRST
        self._next_attempt = time.monotonic()
        self._answer_by = 0.0
        self._refused = False
        self._client_id = client_id
        self._username = connection.username
        self._password = connection.password
        self._client = self._new_client()

    def exchange(self, seconds: float) -> list[Message]:
        """Write what is pending, wait for messages for at most ``seconds``, read all there are.

        Also connects, as often as it takes, and keeps the connection alive.
        """
        silent = not self.connected and time.monotonic() > self._answer_by
        if self._client.socket() is not None and silent:
            self._say(logging.WARNING, f"{self._broker} {NO_BROKER}")
            self._connect()
        elif self._client.socket() is None and time.monotonic() >= self._next_attempt:
            self._connect()
        if self._client.socket() is None:
            time.sleep(min(seconds, max(0.0, self._next_attempt - time.monotonic())))
            return []
        self._client.loop_misc()
        if self.refused and self.connected and time.monotonic() >= self._ask_again:
            self._subscribe(self._client, sorted(self.refused))
        arrived: list[Message] = []
        size = 0
        while len(arrived) < GROUP and size < GROUP_BYTES:
            if (wire := self._ready(seconds)) is None:
                break
            if not arrived:
                self.read_at = time.monotonic()
            messages = self._read(wire)
            size += sum(len(message.payload) for message in messages)
            arrived += messages
            seconds = 0
        return arrived

    def acknowledge(self, messages: list[Message]) -> None:
        """Tell the broker that it may forget these, which the last exchange returned."""
        wire = self._client.wire
        if wire is not None and self.connected:
            wire.acknowledge(message.packet for message in messages if message.packet)

    def publish(self, topic: str, payload: bytes, *, retain: bool, qos: int) -> None:
        """Send a message; without a connection it is dropped."""
        if self.connected:
            sent = self._client.publish(topic, payload, qos, retain)
            if qos:
                self._unconfirmed.add(sent.mid)

    def close(self) -> None:
        """Say good-bye, once the broker has confirmed all or half a second has passed."""
        ends = time.monotonic() + FLUSH_SECONDS
        while self._unconfirmed and self.connected:
            wire = self._ready(max(0, ends - time.monotonic()))
            if wire is None:
                break
            self._read(wire)
        self._client.on_disconnect = None
        self.connected = False
        self._client.disconnect()

    def _read(self, wire: Wire) -> list[Message]:
        """Read what there is; paho handles all but the messages."""
        arrived = wire.read()
        while wire.wants_paho and self._client.socket() is wire:
            self._client.loop_read()
            if self._client.want_write():  # What its callbacks subscribed to.
                self._client.loop_write()
        return arrived

    def _ready(self, seconds: float) -> Wire | None:
        """The connection, once there is something to read; None if there is not in ``seconds``.

        Writes when there is room.
        """
        ends = time.monotonic() + seconds
        while (wire := self._client.wire) is not None and self._client.socket() is wire:
            if wire.has_more:
                return wire
            wire.flush()
            writing = [wire] if wire.wants_write else []
            left = max(0.0, ends - time.monotonic())
            readable, writable, _ = select.select([wire], writing, [], left)
            if readable:
                return wire
            if not writable:
                return None
        return None

    def _new_client(self) -> _Client:
        """One for each connection: what paho could not send on the last one is out of date.

        It would send it first, so that boards hear of rounds that are over, and more of it each
        time; and whoever hears that we are connected publishes all that is valid anyway.
        """
        client = _Client(
            CallbackAPIVersion.VERSION2,
            self._client_id,
            clean_session=False,
            protocol=MQTTProtocolVersion.MQTTv311,
            manual_ack=True,
        )
        client.connect_timeout = CONNECT_SECONDS
        client.connect_async(self._broker.host, self._broker.port, KEEPALIVE)
        if self._username is not None:
            password = self._password.get_secret_value() if self._password else None
            client.username_pw_set(self._username, password)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        return client

    def _connect(self) -> None:
        if self._client.wire is not None:
            self._client.wire.close()  # A silent one.
        self._client = self._new_client()
        self._unconfirmed.clear()
        self._wanted.clear()
        self._refused = False
        self._answer_by = time.monotonic() + ANSWER_SECONDS
        try:
            self._client.reconnect()
        except (OSError, UnicodeError) as error:  # A host name may even be no host name.
            self._retry_later()
            self._say(
                logging.WARNING,
                f"no broker at {self._broker} ({error}): is it running, and is --broker right? "
                f"trying again until it is there",
            )

    def _retry_later(self) -> None:
        self._next_attempt = time.monotonic() + self._backoff
        self._backoff = min(2 * self._backoff, BACKOFF_MOST)

    def _say(self, level: int, text: str) -> None:
        """Log a change; the same again is none."""
        if text != self._said:
            log.log(level, "%s", text)
            self._said = text

    def _on_connect(
        self, client: Client, _data: object, flags: ConnectFlags, reason: ReasonCode, _more: object
    ) -> None:
        if reason.is_failure:
            self._refused = True
            self._say(
                logging.ERROR,
                f"the broker at {self._broker} refuses us ({reason}): check TMF_USERNAME and "
                f"TMF_PASSWORD, and the broker's own list; trying again until it agrees",
            )
            return
        self.connected = True
        self.connections += 1
        self._backoff = BACKOFF_FIRST
        # Each time that we subscribe, the broker queues every retained message for us again. Where
        # it has kept our session, and this process has heard them, that would only pile up.
        self._subscribed = self._subscribed and flags.session_present
        if not self._subscribed:
            self.refused = frozenset()
            self._subscribe(client, self._subscriptions)
            if self._optional:  # Apart: a broker may refuse all of a packet for one filter.
                self._subscribe(client, self._optional)
        self._say(logging.INFO, f"connected to the broker at {self._broker}")

    def _subscribe(self, client: Client, topics: list[str]) -> None:
        self._ask_again = time.monotonic() + BACKOFF_MOST
        _, packet = client.subscribe([(topic, 1) for topic in topics])
        if packet is not None:
            self._wanted[packet] = topics

    def _on_subscribe(
        self,
        _client: Client,
        _data: object,
        packet: int,
        reasons: list[ReasonCode],
        _more: object,
    ) -> None:
        topics = self._wanted.pop(packet, [])
        if topics == self._optional:
            return
        refused = {
            topic for topic, reason in zip(topics, reasons, strict=True) if reason.is_failure
        }
        self.refused = self.refused - set(topics) | refused
        self._subscribed = not self.refused
        if refused:
            self._say(
                logging.ERROR,
                f"the broker at {self._broker} does not let us read {', '.join(sorted(refused))}: "
                f"check TMF_USERNAME and the broker's list of who may do what; asking again until "
                f"it agrees",
            )
        elif topics != self._subscriptions:
            self._say(logging.INFO, f"the broker at {self._broker} lets us read all that we must")

    def _on_disconnect(
        self, _client: Client, _data: object, _flags: object, reason: ReasonCode, _more: object
    ) -> None:
        if self.connected:
            self._say(
                logging.WARNING,
                f"lost the broker at {self._broker} ({reason}); if this goes on, does another "
                f"aggregator serve this fleet?",
            )
        elif not self._refused:
            self._say(logging.WARNING, f"{self._broker} {NO_BROKER}")
        self.connected = False
        self._retry_later()

    def _on_publish(
        self, _client: Client, _data: object, packet: int, _reason: ReasonCode, _more: object
    ) -> None:
        self._unconfirmed.discard(packet)
