"""Follow a fleet's progress topic, as a person with an MQTT client would."""

import queue
from types import TracebackType
from typing import Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from protocol.progress import Progress
from protocol.topics import Topics


class Watcher:
    """The progress messages of one fleet, in order, through a broker on loopback."""

    def __init__(self, port: int, topics: Topics) -> None:
        self._messages: queue.Queue[Progress] = queue.Queue()
        self._topic = topics.progress
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = self._subscribe
        self._client.on_message = self._take
        self._client.connect("127.0.0.1", port)

    def __enter__(self) -> Self:
        self._client.loop_start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def next(self, seconds: float) -> Progress | None:
        """The next message, or None if none comes within so many seconds."""
        try:
            return self._messages.get(timeout=seconds)
        except queue.Empty:
            return None

    def _subscribe(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe(self._topic, 1)

    def _take(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        self._messages.put(Progress.parse(bytes(message.payload)))
