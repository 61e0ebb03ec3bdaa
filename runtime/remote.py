"""The operator's end of the command topic: ask a fleet's aggregator through the broker.

It speaks MQTT 5, whose broker says why: that it does not let us, or that nobody listens.
"""

import contextlib
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode
from pydantic import ValidationError

from protocol.commands import MAX_COMMAND_BYTES, Answer, Command
from protocol.errors import ProgressError
from protocol.progress import Progress
from protocol.topics import Topics
from runtime.errors import RemoteError
from runtime.settings import Connection
from runtime.transport import NO_BROKER

BROKER_SECONDS: Final = 5.0
"""For each thing that the broker itself is to say."""
RETAINED_SECONDS: Final = 2.0
"""For a retained message, which the broker sends at once where it has one."""
NOBODY_LISTENS: Final = 0x10
"""MQTT 5, 3.4.2.1: no matching subscribers."""


class Remote:
    """A connection for the time of a command, as a context.

    Args:
        connection: where the broker is, and who we are.
        fleet: whose topics.

    Raises:
        RemoteError: here and in every method: what does not work, and what to check.
    """

    def __init__(self, connection: Connection, fleet: str) -> None:
        self.fleet = fleet
        self._topics = Topics(fleet)
        self._broker = connection.broker
        self._refused: str | None = None
        """What the broker does not let us do."""
        self._connected = False
        self._agreed: set[int] = set()  # Packets that the broker has agreed to.
        self._nobody_listens = False
        self._heard: dict[str, bytes] = {}
        self._answers: list[Answer] = []
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.connect_timeout = BROKER_SECONDS
        if connection.username is not None:
            password = connection.password
            secret = password.get_secret_value() if password else None
            self._client.username_pw_set(connection.username, secret)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_publish = self._on_publish
        self._client.on_message = self._on_message

    def __enter__(self) -> Self:
        try:
            self._client.connect(self._broker.host, self._broker.port)
        except (OSError, UnicodeError) as error:  # A host name may even be no host name.
            raise RemoteError(
                f"no broker at {self._broker} ({error}): is it running, and is --broker right?"
            ) from error
        if not self._until(lambda: self._connected, BROKER_SECONDS):
            raise RemoteError(f"{self._broker} {NO_BROKER}")
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        self._client.on_disconnect = None
        self._client.disconnect()

    def progress(self) -> Progress:
        """What the aggregator last said of its fleet."""
        payload = self._retained(self._topics.progress, "progress")
        try:
            return Progress.parse(payload)
        except ProgressError as error:
            raise RemoteError(f"fleet {self.fleet!r}: {error}") from error

    def plan(self) -> bytes:
        """The plan in force: a :class:`protocol.messages.Plan`."""
        return self._retained(self._topics.plan, "plan")

    def tell(self, command: Command) -> None:
        """Hand a command to the broker, which keeps it for the aggregator if that is away."""
        payload = command.model_dump_json().encode()
        if len(payload) > MAX_COMMAND_BYTES:
            raise RemoteError(
                f"{command.command}: a command of {len(payload):,} bytes; at most "
                f"{MAX_COMMAND_BYTES:,} are taken"
            )
        self._subscribe(self._topics.answer)
        sent = self._client.publish(self._topics.command, payload, 1)
        self._agree(sent.mid, f"take the command {command.command} from us")
        if self._nobody_listens:
            raise RemoteError(
                f"nobody took the command: no aggregator has served fleet {self.fleet!r} at "
                f"{self._broker}; check --fleet and --broker"
            )

    def answer(
        self, command: Command, seconds: float, show: Callable[[Progress], None] | None = None
    ) -> Answer | None:
        """What came of a command that was told; None if that is not known after so long.

        Args:
            command: with an id of its own.
            seconds: to wait.
            show: given what the aggregator says of its progress meanwhile.
        """
        if show is not None:
            self._subscribe(self._topics.progress)
        shown: bytes | None = None

        def answered() -> bool:
            nonlocal shown
            progress = self._heard.get(self._topics.progress)
            if show is not None and progress is not None and progress is not shown:
                shown = progress
                with contextlib.suppress(ProgressError):  # Not the aggregator's.
                    show(Progress.parse(progress))
            return any(answer.id == command.id for answer in self._answers)

        if not self._until(answered, seconds):
            return None
        return next(answer for answer in self._answers if answer.id == command.id)

    def _retained(self, topic: str, what: str) -> bytes:
        self._subscribe(topic)
        if not self._until(lambda: topic in self._heard, RETAINED_SECONDS):
            raise RemoteError(
                f"no {what} of fleet {self.fleet!r} at {self._broker}: no aggregator has served it "
                f"there; check --fleet and --broker"
            )
        return self._heard[topic]

    def _subscribe(self, topic: str) -> None:
        _, packet = self._client.subscribe(topic, 1)
        assert packet is not None  # noqa: S101 - paho gives one unless the filter is malformed
        self._agree(packet, f"let us read {topic}")

    def _agree(self, packet: int, what: str) -> None:
        """Wait until the broker agrees to a packet."""
        self._refused = None
        if not self._until(lambda: packet in self._agreed, BROKER_SECONDS):
            raise RemoteError(f"{self._broker} did not {what} within {BROKER_SECONDS:.0f} s")
        if self._refused is not None:
            raise RemoteError(
                f"the broker at {self._broker} does not {what} ({self._refused}): check --username "
                f"and TMF_PASSWORD, and the broker's list of who may do what"
            )

    def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Exchange messages until something holds; whether it does."""
        ends = time.monotonic() + seconds
        while not condition():
            left = ends - time.monotonic()
            if left <= 0:
                return False
            self._client.loop(min(left, 1.0))  # Returns to keep the connection alive.
        return True

    # --- What the broker says; what is wrong is raised through paho, out of the wait -------------

    def _on_connect(
        self, _client: Client, _data: object, _flags: object, reason: ReasonCode, _more: object
    ) -> None:
        if reason.is_failure:
            raise RemoteError(
                f"the broker at {self._broker} refuses us ({reason}): check --username and "
                f"TMF_PASSWORD, and the broker's own list"
            )
        self._connected = True

    def _on_disconnect(
        self, _client: Client, _data: object, _flags: object, reason: ReasonCode, _more: object
    ) -> None:
        if self._connected:
            raise RemoteError(f"the broker at {self._broker} ended the connection ({reason})")
        raise RemoteError(f"{self._broker} {NO_BROKER}")

    def _on_subscribe(
        self, _client: Client, _data: object, packet: int, reasons: list[ReasonCode], _more: object
    ) -> None:
        self._take(packet, reasons[0])

    def _on_publish(
        self, _client: Client, _data: object, packet: int, reason: ReasonCode, _more: object
    ) -> None:
        self._nobody_listens = reason.value == NOBODY_LISTENS
        self._take(packet, reason)

    def _take(self, packet: int, reason: ReasonCode) -> None:
        self._agreed.add(packet)
        if reason.is_failure:
            self._refused = str(reason)

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self._heard[message.topic] = bytes(message.payload)
        if message.topic == self._topics.answer:
            try:
                self._answers.append(Answer.model_validate_json(message.payload))
            except ValidationError:
                return  # Not the aggregator's.
