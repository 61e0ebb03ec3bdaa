"""What an operator says: read, carried out at once or journaled until it can be, and answered.

A command that changes what boards work on waits until no round is open: what they have learned for
it is not thrown away. It is journaled meanwhile, so a crash does not lose it.
"""

import logging
from collections.abc import Callable

from aggregator.fleet import Fleet
from aggregator.journal.journal import Journal
from aggregator.publisher import Publisher
from protocol.commands import Apply, AtOnce, Command, Import, Pause, Resume, RollBack, Stop, parse
from protocol.errors import CommandError, ProtocolError
from protocol.mqtt import Message
from rounds.core import Decision

log = logging.getLogger(__name__)


class Steering:
    """The fleet's command topic.

    Args:
        journal: open; keeps the commands that wait.
        publisher: brings the answers.

    Raises:
        StateError: in every method: the journal cannot be used.
    """

    def __init__(self, journal: Journal, publisher: Publisher) -> None:
        self._journal = journal
        self._publisher = publisher
        self.has_waiting = True
        """Whether commands wait, perhaps: at the start only the journal knows."""

    def hear(self, message: Message) -> AtOnce | None:
        """Read a command; itself, if it is to be carried out at once.

        One that the broker retains is none: it would be carried out again at every start. An empty
        message is what takes a retained one back.
        """
        if not message.payload:
            return None
        try:
            command = _read(message)
        except CommandError as error:
            log.warning("a command is refused: %s", error)
            self._publisher.answer("", error.id, str(error), done=False)
            return None
        if isinstance(command, AtOnce):
            return command
        self._journal.enqueue(command.model_dump_json())
        self.has_waiting = True
        return None

    def steer(self, command: AtOnce, fleet: Fleet, now: float) -> list[Decision]:
        """Carry out a command that acts at once; what is to be done about the open round."""
        match command:
            case Pause():
                return fleet.core.pause()
            case Resume():
                fleet.core.resume()
                return []
            case Stop():
                return fleet.core.stop(now)

    def catch_up(self, fleet: Fleet, now: float, begin: Callable[[Fleet], None]) -> None:
        """Carry out what was waiting until no board is at work.

        Args:
            fleet: as it is.
            now: seconds on the round core's clock.
            begin: told the fleet after each command that changed what its boards work on.
        """
        self.has_waiting = False
        for number, text in self._journal.commands():
            command = parse(text)
            try:
                if isinstance(command, Apply):
                    fleet = fleet.adopt(command, now)
                    done = f"lineage {fleet.spec.lineage:08x} goes by the new spec"
                elif isinstance(command, RollBack | Import):
                    done = fleet.replace(command)
            except (CommandError, ProtocolError) as error:
                self.answer(command, str(error), done=False)
            else:
                begin(fleet)
                self.answer(command, done, done=True)
            self._journal.dequeue(number)

    def answer(self, command: Command, detail: str, *, done: bool) -> None:
        """Say what came of a command."""
        level = logging.INFO if done else logging.WARNING
        log.log(level, "command %s: %s", command.command, detail)
        self._publisher.answer(command.command, command.id, detail, done=done)


def _read(message: Message) -> Command:
    """A command that was published for us, now.

    Raises:
        CommandError: it is none, or the broker has kept it since then.
    """
    command = parse(message.payload)
    if message.is_retained:
        raise CommandError(
            f"a retained command {command.command} is not carried out, or it would be at every "
            f"start: publish an empty retained message to {message.topic}, and the command without "
            f"the retain flag",
            command.id,
        )
    return command
