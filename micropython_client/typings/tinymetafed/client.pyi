"""A board of a fleet: hear of a round, learn, send, and send again until the receipt.

session.py has the states in between.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeAlias

from tinymetafed.samples import Activations

_Values: TypeAlias = float | Sequence[float] | array[Any] | Activations
_Sample: TypeAlias = tuple[_Values, _Values] | None
_Source: TypeAlias = Iterator[_Sample] | Callable[[int], Iterator[_Sample]]
_State: TypeAlias = Literal[
    "offline",
    "idle",
    "adopting",
    "fetching",
    "training",
    "encoding",
    "sending",
    "waiting",
    "stopped",
]
_Battery: TypeAlias = Callable[[], float | None]

class Client:
    """A board of a fleet.

    Args:
        settings: the path of a JSON file, or a dict, with the settings of config.SETTINGS.

    Attributes:
        board: its name.
        fleet: the fleet's name.
        state: what it is doing, a word of session.STATES; docs/board.md explains them.
        skipped: samples that were not learned from because they do not fit the model.

    Raises:
        ConfigError: a setting is wrong; says which and what to write.
    """

    board: str
    fleet: str
    state: _State
    skipped: int
    def __init__(self, settings: str | dict[str, Any]) -> None: ...
    def run(
        self,
        source: _Source,
        idle: Callable[[], object] | None = None,
        battery: _Battery | None = None,
    ) -> None:
        """Take part until the source of samples ends.

        Args:
            source: an iterator of (x, y), where each is a number or a sequence of numbers; or a
                function that gets a round's number and returns such an iterator, for data that
                change from round to round.
            idle: a function that is called again and again between rounds, with or without a
                connection, once this board has learned in one: the place to predict.
            battery: a function that answers with the battery's level, 0 to 100 percent, or None
                where it is not known.
        """
    def begin(self, source: _Source, battery: _Battery | None = None) -> None:
        """Begin to take part by steps, from a loop of one's own.

        Args:
            source: as run takes it.
            battery: as run takes it.
        """
    def step(self, milliseconds: int = 0) -> bool:
        """Do one thing: handle a message, learn from a sample, send an update, try to connect.

        A step that sends, connects or handles a message waits for the broker's answer; one that
        learns waits for the sample.

        Args:
            milliseconds: to wait for a message, or for the next try to connect, where there is
                nothing to do.

        Returns:
            Whether there was something to do.
        """
    def rest(self) -> bool:
        """Go to sleep, between rounds: say so, and leave the broker in order.

        It first hears out what the broker has to say. The next step connects again; run does so
        when idle returns.

        Returns:
            Whether this board is off the network, and nothing waits for it: sleep now. False where
            a round invites it, or where there was no connection.
        """
    # A list where the model has several outputs, which is the program's to know.
    def predict(self, x: _Values) -> float | Any:
        """The answer of the model as this board last trained it.

        Args:
            x: a number, or a sequence of as many as the model takes.

        Returns:
            A number, or a list of them where the model has several outputs.

        Raises:
            ModelError: no model has come yet, or x does not fit it.
        """
