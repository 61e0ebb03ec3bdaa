"""The socket below paho: whole buffers in and out, instead of a packet a call.

paho reads a packet in three system calls and several locks, and writes each acknowledgement by
itself. That is well for the few packets of a connection's life, and too much for the updates of a
fleet. So paho is given this in the socket's place, as it puts a class of its own there to speak
WebSockets. Published messages are taken out here, as many as a buffer holds; all other packets go
on to paho. What is written gathers here, and goes out together.
"""

import contextlib
import socket
import ssl
from collections.abc import Iterable
from typing import Final

from protocol import mqtt
from protocol.errors import PacketError

READ_BYTES: Final = 2**15
"""At a time, at most."""


class Wire:
    """A connected socket, as paho uses one, that does not block.

    Args:
        sock: connected; with TLS, if that is wanted.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.has_more = False
        """Whether the last read left something behind, which TLS hides from select."""
        self._sock = sock
        self._in = bytearray()  # The beginning of a packet.
        self._others = bytearray()  # Packets that paho has not read yet.
        self._out = bytearray()
        self._has_ended = False
        if sock.family != socket.AF_UNIX:  # Else each group waits 40 ms for an ACK.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # --- For the transport

    @property
    def wants_paho(self) -> bool:
        """Whether there is something for paho to read, be it the end of the connection."""
        return bool(self._others) or self._has_ended

    @property
    def wants_write(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._out)

    def read(self) -> list[mqtt.Message]:
        """Read what there is, up to about READ_BYTES; the published messages in it."""
        begun = len(self._in)
        try:
            self.has_more = True
            while len(self._in) - begun < READ_BYTES:
                if not (data := self._sock.recv(READ_BYTES)):
                    raise ConnectionResetError
                self._in += data
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self.has_more = False
        except OSError:
            self.has_more = False
            self._has_ended = True
        messages = []
        try:
            for packet in mqtt.split(self._in):
                if packet.head >> 4 == mqtt.PUBLISH:
                    messages.append(mqtt.message_of(packet))
                else:
                    self._others += mqtt.join(*packet)
        except PacketError:
            self._has_ended = True  # Nothing after this can be understood.
        return messages

    def acknowledge(self, packets: Iterable[int]) -> None:
        """Write a PUBACK for each."""
        self._out += mqtt.acknowledge(packets)

    def flush(self) -> None:
        """Write what waits, as much as the socket takes."""
        try:
            while self._out:
                del self._out[: self._sock.send(self._out)]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            self._has_ended = True
            self._out.clear()

    # --- For paho, which takes this for a socket

    def recv(self, buffer_size: int) -> bytes:
        """The next bytes of the other packets; none at the end of the connection."""
        if not self._others and not self._has_ended:
            raise BlockingIOError
        data = bytes(self._others[:buffer_size])
        del self._others[:buffer_size]
        return data

    def send(self, buffer: bytes | bytearray) -> int:
        """Take all of it, to be written by the next flush."""
        self._out += buffer
        return len(buffer)

    def close(self) -> None:
        """Write what can be written at once, and close."""
        self.flush()
        with contextlib.suppress(OSError):
            self._sock.close()

    def fileno(self) -> int:
        """For select; -1 once closed."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - the signature is a socket's
        """As a socket's."""
        self._sock.setblocking(flag)
