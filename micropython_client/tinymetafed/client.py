"""A board of a fleet: hear of a round, learn, send, and send again until the receipt.

session.py has the states in between.
"""

import sys
import time

from micropython import const
from umqtt.simple import MQTTException

from tinymetafed import session
from tinymetafed.errors import ModelError

_MANY = const(100)  # samples that run learns from in one go
# Milliseconds.
_PATIENCE = const(1000)  # to wait for a message when there is nothing to do
_SETTLE = const(500)  # of silence, until all that is retained has been heard


class Client(session.Session):
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

    def __init__(self, settings):
        from tinymetafed import config

        settings = config.load(settings)
        # Not needed again: it gives its heap back.
        del sys.modules["tinymetafed.config"], sys.modules["tinymetafed"].config
        super().__init__(settings)

    def run(self, source, idle=None, battery=None):
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
        self.begin(source, battery)
        while self.state != "stopped":
            try:
                if self.state == "training":
                    self._train(0, _MANY)
                can_idle = idle and self._has_learned and self.state in ("offline", "idle")
                if not self.step(0 if can_idle else _PATIENCE) and can_idle:
                    idle()
            except (OSError, MQTTException) as error:
                self._lose(error)

    def begin(self, source, battery=None):
        """Begin to take part by steps, from a loop of one's own.

        Args:
            source: as run takes it.
            battery: as run takes it.
        """
        self._source = source
        self._battery = battery
        self.state = "idle"

    def step(self, milliseconds=0):
        """Do one thing: handle a message, learn from a sample, send an update, try to connect.

        A step that sends, connects or handles a message waits for the broker's answer; one that
        learns waits for the sample.

        Args:
            milliseconds: to wait for a message, or for the next try to connect, where there is
                nothing to do.

        Returns:
            Whether there was something to do.
        """
        try:
            return self._STEPS[session.STATES.index(self.state)](self, milliseconds)
        except (OSError, MQTTException) as error:
            self._lose(error)
            return True

    def rest(self):
        """Go to sleep, between rounds: say so, and leave the broker in order.

        It first hears out what the broker has to say. The next step connects again; run does so
        when idle returns.

        Returns:
            Whether this board is off the network, and nothing waits for it: sleep now. False where
            a round invites it, or where there was no connection.
        """
        start = time.ticks_ms()
        while self._listen(_SETTLE) and time.ticks_diff(time.ticks_ms(), start) < _SETTLE:
            pass
        if self.state != "idle" or not self._link.is_up or self._update or self._is_invited():
            return False
        self._leave("sleeping")
        return True

    def predict(self, x):
        """The answer of the model as this board last trained it.

        Args:
            x: a number, or a sequence of as many as the model takes.

        Returns:
            A number, or a list of them where the model has several outputs.

        Raises:
            ModelError: no model has come yet, or x does not fit it.
        """
        if self._network is None:
            raise ModelError("no model yet: it comes with the first round")
        answer = self._network.predict(x)
        return answer[0] if len(answer) == 1 else answer
