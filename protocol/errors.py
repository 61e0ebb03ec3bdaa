"""What can go wrong with the things that parts of a fleet tell each other.

Above this package's tree stands the root of all packages' trees, :class:`TinyMetaFedError`, by
which the command line knows errors of ours without importing every package.

::

    ProtocolError
    +- SpecError      a spec file that cannot be used: names the file, the line and the reason
    +- MessageError   bytes that are not the message their topic promises
    |   +- FormatError  ... because the peer speaks another format
    +- SparseError    a sparse block that its decoder refuses
    +- PacketError    bytes that are no MQTT packet
    +- ProgressError  a message of the progress topic that no aggregator of this version sends
    +- CommandError   an operator's command that cannot be read or carried out: says why
"""


class TinyMetaFedError(Exception):
    """The root of every package's exceptions: its message is all that a user needs."""


class ProtocolError(TinyMetaFedError):
    """The root of this package's exceptions."""


class SpecError(ProtocolError):
    """A spec that cannot be used."""


class MessageError(ProtocolError):
    """Bytes that are not the message their topic promises."""


class FormatError(MessageError):
    """A message of another format of the wire: its sender is older or newer."""


class SparseError(ProtocolError):
    """A sparse block that is not one: wrong length, indices out of order, scales out of range."""


class PacketError(ProtocolError):
    """Bytes that are no MQTT packet: the connection that they came on cannot go on."""


class ProgressError(ProtocolError):
    """Not a message of the progress topic."""


class CommandError(ProtocolError):
    """An operator's command cannot be read or carried out.

    Args:
        message: why not.
        id_: of the command, where it could be read.
    """

    def __init__(self, message: str, id_: str = "") -> None:
        super().__init__(message)
        self.id = id_
