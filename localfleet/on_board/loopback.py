"""Runs on a board that has no network: a line whose other end is a file of what a broker answers.

Stands in for the modules socket, select and os. Before each piece in the file stands its length,
four bytes, big endian; a piece comes when the client waits for an answer. The client's update, and
what it sends after that, is printed in hexadecimal, behind a ">".
"""

import sys
from binascii import hexlify

POLLIN = 1
_PIECE = 32
_UPDATE = 0x32  # PUBLISH at QoS 1, not retained

_file = open("broker", "rb")  # noqa: SIM115 - until the board ends


class socket:  # noqa: N801 - its name in the module that it stands in for
    def __init__(self):
        self._left = 0  # bytes of the piece that has come
        self._shows = False

    def connect(self, _address):
        pass

    def settimeout(self, _seconds):
        pass

    def close(self):
        pass

    def read(self, size):
        self._wait(size)
        return _file.read(size)

    def readinto(self, buffer):
        self._wait(len(buffer))
        return _file.readinto(buffer)

    def _wait(self, size):
        if not self._left:
            self._left = int.from_bytes(_file.read(4), "big")
            if not self._left:
                raise RuntimeError("it waits for an answer that this broker does not give")
        self._left -= size

    def write(self, data, size=-1):
        if size < 0:
            size = len(data)
        data = memoryview(data)
        self._shows |= data[0] == _UPDATE
        for start in range(0, size if self._shows else 0, _PIECE):
            print(">" + hexlify(data[start : min(start + _PIECE, size)]).decode())


class poll:  # noqa: N801
    def register(self, sock, _events):
        self._events = ((sock, POLLIN),)

    def unregister(self, _sock):
        self._events = ()

    def ipoll(self, _milliseconds):
        return self._events if self._events[0][0]._left else ()


def getaddrinfo(host, port):
    return (((host, port),),)


def urandom(count):
    return bytes(count)


for name in ("usocket", "select", "os"):
    sys.modules[name] = sys.modules[__name__]
