"""The line to the broker: umqtt.simple with time-outs, whole packets and byte counts."""

import errno
import select
import time

from micropython import const
from umqtt.simple import MQTTClient

_TIMEOUT = const(10)  # seconds within which a packet that has begun must be over
_PACKET = const(1056)  # a chunk of the model
_SHORT = const(64)


class _Wire:
    """A socket as umqtt.simple uses it.

    It gathers the pieces in which umqtt.simple writes a packet, because a piece that waits for the
    other side's delayed acknowledgement costs 40 ms; and it gives each read a time-out, because a
    peer can vanish within a packet. What is long is read into the same buffer, because later there
    may be no such stretch of heap: the next read or write is over it.
    """

    def __init__(self, sock, buffer):
        self._sock = sock
        self._out = buffer
        self._used = 0
        self.sent = 0
        self.received = 0
        sock.settimeout(_TIMEOUT)

    def write(self, data, size=-1):
        if size < 0:
            size = len(data)
        if self._used + size > _PACKET:
            self.flush()
        if size > _PACKET:
            self._sock.write(data)
        else:
            self._out[self._used : self._used + size] = memoryview(data)[:size]
            self._used += size
        self.sent += size

    def flush(self):
        if self._used:
            used = self._used
            self._used = 0
            self._sock.write(memoryview(self._out)[:used])

    def read(self, size):
        self.flush()
        if _SHORT < size <= _PACKET:
            data = memoryview(self._out)[:size]
            is_whole = self._sock.readinto(data) == size
        else:
            data = self._sock.read(size)
            is_whole = data is not None and len(data) == size
        if not is_whole:
            raise OSError(errno.ECONNRESET)
        self.received += size
        return data

    def setblocking(self, _):
        pass  # umqtt.simple would take the time-out away

    def close(self):
        self._sock.close()


class Link(MQTTClient):
    """A connection that is kept alive by calling poll often enough. Topics and payloads are bytes.

    Every method may raise OSError or umqtt's MQTTException; after that, close and connect again.
    """

    def __init__(self, settings):
        super().__init__(
            settings["client"],
            settings["host"],
            settings["port"],
            settings["user"] or None,
            settings["password"],
            settings["keepalive"],
        )
        self.peer = "%s:%d" % (self.server, self.port)
        self._poller = select.poll()
        self._raw = None
        self._buffer = bytearray(_PACKET)
        self._past = [0, 0]
        self.is_up = False
        self._heard = time.ticks_ms()
        self._spoke = time.ticks_ms()

    @property
    def bytes_up(self):
        """MQTT bytes sent since the board started."""
        return self._past[0] + (self.sock.sent if self.is_up else 0)

    @property
    def bytes_down(self):
        """MQTT bytes received since the board started."""
        return self._past[1] + (self.sock.received if self.is_up else 0)

    def open(self):
        """Connect; the broker forgets what an earlier connection had subscribed to."""
        self.close()
        self.connect()
        self._poller.register(self.sock, select.POLLIN)
        self._raw = self.sock
        self.sock = _Wire(self.sock, self._buffer)
        self._heard = self._spoke = time.ticks_ms()
        self.is_up = True

    def close(self):
        """Drop the connection, whatever its state; the broker then publishes the last will."""
        if self.is_up:
            self._past[0] += self.sock.sent
            self._past[1] += self.sock.received
            self._poller.unregister(self._raw)
            self.is_up = False
        if self.sock:
            self.sock.close()
            self.sock = None

    def subscribe(self, topic, qos=0):
        """Subscribe; what is retained there comes at once."""
        self.pid = self.pid % 65535  # umqtt.simple counts beyond what a packet holds
        super().subscribe(topic, qos)

    def publish(self, topic, payload, retain=False, qos=0):
        """Publish; at QoS 1, return when the broker has it."""
        self.pid = self.pid % 65535
        super().publish(topic, payload, retain, qos)
        self.sock.flush()
        self._spoke = time.ticks_ms()
        if qos:
            self._heard = self._spoke

    def unsubscribe(self, topic):
        """Unsubscribe (MQTT 3.1.1, section 3.10), which umqtt.simple cannot."""
        self.pid = self.pid % 65535 + 1
        head = bytearray(6)
        head[0] = 0xA2
        head[1] = len(topic) + 4
        head[2] = self.pid >> 8
        head[3] = self.pid & 0xFF
        head[4] = len(topic) >> 8
        head[5] = len(topic) & 0xFF
        self.sock.write(head)
        self.sock.write(topic)
        while self.wait_msg() != 0xB0:
            pass
        self.sock.read(3)

    def disconnect(self):
        """Leave in order: the broker does not publish the last will."""
        self.sock.write(b"\xe0\0")
        self.sock.flush()
        self.close()

    def poll(self, milliseconds=0):
        """Handle a message if one comes within so many milliseconds; whether one came.

        Allocates nothing if none does.
        """
        now = time.ticks_ms()
        for _ in self._poller.ipoll(milliseconds):
            self.wait_msg()
            self.sock.flush()
            self._heard = time.ticks_ms()
            return True
        if time.ticks_diff(now, self._spoke) > self.keepalive * 500:
            self.ping()
            self.sock.flush()
            self._spoke = now
        if time.ticks_diff(now, self._heard) > self.keepalive * 1500:
            raise OSError(errno.ETIMEDOUT)
        return False
