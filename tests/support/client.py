"""The tests' own MQTT client, on a real broker."""

import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.waiting import PATIENCE

AT_ONCE = 500
"""Messages on their way at a time; paho's own limit of 20 makes a flood a trickle."""


class Client:
    """Keeps what it hears, and says what it is told to; its loop is paho's own thread.

    It connects again by itself whenever it loses its broker, and has no last will.

    Args:
        port: where the broker listens, now or later.
        topics: what it subscribes to, with QoS 1, at each connection.
        name: its identifier; the broker finds one if not given.
        keeps_session: whether the broker keeps messages for it while it is away.
        news: is notified of each message; several clients may share it.
    """

    def __init__(
        self,
        port: int,
        *topics: str,
        name: str = "",
        keeps_session: bool = False,
        news: threading.Condition | None = None,
    ) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.news = news or threading.Condition()
        self._topics = topics
        self._is_ready = threading.Event()
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, name, clean_session=not keeps_session
        )
        self._client.max_inflight_messages_set(AT_ONCE)
        self._client.reconnect_delay_set(0.05, 0.2)  # type: ignore[arg-type]  # Floats do.
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._is_ready.set()
        self._client.on_message = self._on_message
        self._client.connect_async("127.0.0.1", port)

    def start(self) -> None:
        """Go for the broker, which need not be there yet."""
        self._client.loop_start()

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> Self:
        """Start, and wait until the broker knows what it wants to hear."""
        self.start()
        assert self._is_ready.wait(PATIENCE), "there is no broker"
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- What it says

    @property
    def is_connected(self) -> bool:
        return self._client.is_connected()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> mqtt.MQTTMessageInfo:
        """Publish with QoS 1, and wait for nothing."""
        return self._client.publish(topic, payload, 1, retain)

    def send(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish, and wait until the broker has it."""
        self._wait_for_broker(self.publish(topic, payload, retain=retain))

    def send_all(self, messages: Iterable[tuple[str, bytes]]) -> int:
        """Publish as fast as the broker takes it; how many there were, once it has them all."""
        sent = [self.publish(topic, payload) for topic, payload in messages]
        for message in sent:
            self._wait_for_broker(message)
        return len(sent)

    @staticmethod
    def _wait_for_broker(message: mqtt.MQTTMessageInfo) -> None:
        message.wait_for_publish(PATIENCE)
        assert message.is_published(), "the broker does not take a message"

    # --- What it hears

    def connected(self) -> None:
        """For a client that says something at each connection; in paho's thread."""

    def take(self, topic: str, payload: bytes) -> None:
        """Keep a message; in paho's thread, which holds the condition."""
        self.received.append((topic, payload))

    def latest(self, topic: str) -> bytes | None:
        """The newest message on a topic."""
        return next((payload for at, payload in reversed(self.received) if at == topic), None)

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait until it is so; it is looked at whenever a message has come."""
        with self.news:
            arrived = self.news.wait_for(condition, PATIENCE)
        assert arrived, f"waited for {what}; received {[topic for topic, _ in self.received][-20:]}"

    def _on_connect(
        self, client: mqtt.Client, _data: object, _flags: object, _reason: object, _more: object
    ) -> None:
        if self._topics:
            client.subscribe([(topic, 1) for topic in self._topics])
        else:
            self._is_ready.set()
        self.connected()

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        with self.news:
            self.take(message.topic, bytes(message.payload))
            self.news.notify_all()
