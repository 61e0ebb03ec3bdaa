"""The one narrow door to MQTT: paho-mqtt, driven from the aggregator's own loop, without threads.

Everything that can be read is read first, so that the journal commits it as one group; only then is
it acknowledged. MQTT 3.1.1 with a persistent session: what arrives while the aggregator is away, or
was not acknowledged when it died, the broker sends again.
"""

import logging
import select
import socket
import time
from dataclasses import dataclass
from typing import Final

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from aggregator.settings import Address

log = logging.getLogger(__name__)

KEEPALIVE: Final = 30
CONNECT_SECONDS: Final = 1.0
"""For one attempt; a stop may have to wait for it."""
ANSWER_SECONDS: Final = 5.0
"""From the connection to the broker's word that it accepts us."""
BACKOFF_FIRST: Final = 0.5
BACKOFF_MOST: Final = 15.0
GROUP: Final = 1000
"""Most messages that one exchange hands out."""
GROUP_BYTES: Final = 2**22
"""Most bytes of payload in them, but for the last one: large garbage must not fill the memory."""
FLUSH_SECONDS: Final = 0.5
NO_BROKER: Final = "answers, but not as an MQTT broker does: is --broker right?"


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message from the broker."""

    topic: str
    payload: bytes
    packet: int
    """By which it is acknowledged; 0 where that is not wanted."""


class Transport:
    """A connection to the broker that comes back by itself.

    Args:
        broker: where it listens. It need not be there yet.
        client_id: fixed, for the broker keeps the session under it.
        subscriptions: topic filters, each subscribed with QoS 1.
        username: by which the broker knows us, if it asks.
        password: to that name.
    """

    def __init__(
        self,
        broker: Address,
        client_id: str,
        subscriptions: list[str],
        username: str | None = None,
        password: str | None = None,
    ) -> None:
        self.connections = 0
        """How often the broker has accepted us."""
        self.connected = False
        self._broker = broker
        self._subscriptions = subscriptions
        self._subscribed = False
        self._arrived: list[Arrived] = []
        self._arrived_bytes = 0
        self._unconfirmed: set[int] = set()  # Packets that we sent with QoS 1.
        self._said = ""
        self._backoff = BACKOFF_FIRST
        self._next_attempt = time.monotonic()
        self._answer_by = 0.0
        self._refused = False
        self._client_id = client_id
        self._username = username
        self._password = password
        self._client = self._new_client()

    def exchange(self, seconds: float) -> list[Arrived]:
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
        while self._has_room() and self._ready(seconds):
            self._client.loop_read()
            seconds = 0
        arrived, self._arrived, self._arrived_bytes = self._arrived, [], 0
        return arrived

    def acknowledge(self, messages: list[Arrived]) -> None:
        """Tell the broker that it may forget these, which the last exchange returned."""
        for message in messages:
            if message.packet and self.connected:
                self._client.ack(message.packet, 1)

    def publish(self, topic: str, payload: bytes, *, retain: bool, qos: int) -> None:
        """Send a message; without a connection it is dropped."""
        if self.connected:
            sent = self._client.publish(topic, payload, qos, retain)
            if qos:
                self._unconfirmed.add(sent.mid)

    def close(self) -> None:
        """Say good-bye, once the broker has confirmed all or half a second has passed."""
        ends = time.monotonic() + FLUSH_SECONDS
        while self._unconfirmed and self.connected and self._ready(max(0, ends - time.monotonic())):
            self._client.loop_read()
        self._client.on_disconnect = None
        self.connected = False
        self._client.disconnect()

    def _has_room(self) -> bool:
        return len(self._arrived) < GROUP and self._arrived_bytes < GROUP_BYTES

    def _ready(self, seconds: float) -> bool:
        """Whether there is something to read within ``seconds``; writes when there is room."""
        ends = time.monotonic() + seconds
        while (sock := self._client.socket()) is not None:
            writing = [sock] if self._client.want_write() else []
            left = max(0.0, ends - time.monotonic())
            readable, writable, _ = select.select([sock], writing, [], left)
            if writable:
                self._client.loop_write()
            if readable or not writable:
                return bool(readable)
        return False

    def _new_client(self) -> Client:
        """One for each connection: what paho could not send on the last one is out of date.

        It would send it first, so that boards hear of rounds that are over, and more of it each
        time; and whoever hears that we are connected publishes all that is valid anyway.
        """
        client = Client(
            CallbackAPIVersion.VERSION2,
            self._client_id,
            clean_session=False,
            protocol=MQTTProtocolVersion.MQTTv311,
            manual_ack=True,
        )
        client.connect_timeout = CONNECT_SECONDS
        client.connect_async(self._broker.host, self._broker.port, KEEPALIVE)
        if self._username is not None:
            client.username_pw_set(self._username, self._password)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        return client

    def _connect(self) -> None:
        if isinstance(silent := self._client.socket(), socket.socket):
            silent.close()
        self._client = self._new_client()
        self._unconfirmed.clear()
        self._refused = False
        self._answer_by = time.monotonic() + ANSWER_SECONDS
        try:
            self._client.reconnect()
            sock = self._client.socket()
            if isinstance(sock, socket.socket):  # Else each group waits 40 ms for an ACK.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
            client.subscribe([(topic, 1) for topic in self._subscriptions])
        self._say(logging.INFO, f"connected to the broker at {self._broker}")

    def _on_subscribe(
        self,
        _client: Client,
        _data: object,
        _packet: int,
        reasons: list[ReasonCode],
        _more: object,
    ) -> None:
        self._subscribed = not any(reason.is_failure for reason in reasons)

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

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""  # Belongs to nobody.
        packet = message.mid if message.qos else 0
        self._arrived_bytes += len(message.payload)
        self._arrived.append(Arrived(topic, bytes(message.payload), packet))

    def _on_publish(
        self, _client: Client, _data: object, packet: int, _reason: ReasonCode, _more: object
    ) -> None:
        self._unconfirmed.discard(packet)
