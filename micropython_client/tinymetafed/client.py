"""A board's part in the fleet: hear of a round, learn, send, and send again until the receipt.

The client is a loop of turns (Client._turn). Messages only change what the next turn finds; a lost
connection ends a turn, never the loop.
"""

import gc
import json
import os
import sys
import time
from array import array
from collections import OrderedDict
from random import getrandbits

from micropython import const
from umqtt.simple import MQTTException

from tinymetafed import link, messages, sparse, tidy
from tinymetafed.cohort import fnv1a, ticket
from tinymetafed.errors import MessageError, ModelError
from tinymetafed.model import Model
from tinymetafed.network import Network, bytes_needed

VERSION = "0.1.0"
_LOCAL = const(1)
_GLOBAL = const(0)
_SHARDS = const(64)

# Milliseconds.
_IDLE = const(1000)  # to wait for a message when there is nothing to do
_FETCH = const(30000)  # that fetching a model may take
_RESEND = const(2000)  # until an update without a receipt is sent again; doubles each time ...
_RESEND_MOST = const(32000)  # ... up to this
_RECONNECT = const(500)  # until the first try to connect, at most; doubles each time ...
_RECONNECT_MOST = const(60000)  # ... up to this


def _say(text):
    print("tinymetafed:", text)


def _load(settings):
    """The settings; what reads them is not needed again, and gives its heap back."""
    from tinymetafed import config

    settings = config.load(settings)
    del sys.modules["tinymetafed.config"], sys.modules["tinymetafed"].config
    return settings


def _why(error):
    if isinstance(error, MQTTException) and error.args[0] in (4, 5):  # MQTT 3.1.1, table 3.1
        return "it refuses this user or password"
    return repr(error)


class Client:
    """A board of a fleet.

    Args:
        settings: the path of a JSON file, or a dict, with the settings of config.SETTINGS.

    Raises:
        ConfigError: a setting is wrong; says which and what to write.
    """

    def __init__(self, settings):
        settings = _load(settings)
        self.board = settings["board"]
        self.fleet = settings["fleet"]
        self.skipped = 0  # samples that were not learned from because they do not fit the model
        self._broker = "%s:%d" % (settings["host"], settings["port"])
        self._link = link.Link(
            ("tmf-%s-%s" % (self.fleet, self.board)).encode(),
            settings["host"],
            settings["port"],
            settings["user"] or None,
            settings["password"],
            settings["keepalive"],
        )
        root = "tmf/v1/%s/" % self.fleet
        shard = fnv1a(self.board) % _SHARDS
        self._up = ("%sup/%d/%s" % (root, shard, self.board)).encode()
        self._state = ("%sboard/%s/state" % (root, self.board)).encode()
        self._chunks = (root + "model/full/+").encode()
        # In the order in which a board that connects needs what is retained there.
        self._handlers = OrderedDict(
            (
                ((root + "spec").encode(), self._on_plan),
                ((root + "model/delta").encode(), self._on_delta),
                ((root + "round").encode(), self._on_round),
                (("%sreceipt/%d" % (root, shard)).encode(), self._on_receipt),
            )
        )
        self._link.set_callback(self._on_message)
        self._link.set_last_will(self._state, b'{"state":"lost"}', True, 1)
        self._failures = 0  # to connect, since the last success
        self._plan = None
        self._new_plan = None  # to be taken on by the next turn
        self._network = None
        self._model = None
        self._codec = None
        self._writer = None
        self._round = None  # the open one
        self._trained = None  # number of the round that this board last learned in
        self._has_learned = False  # in any round of this plan
        self._is_stale = False  # the round in training is over
        self._update = None  # encoded, and not yet journaled
        self._changes = None  # its sparse block
        self._is_sent = False  # perhaps only in part
        self._resend = _RESEND

    def run(self, source, idle=None):
        """Take part until the source of samples ends.

        Args:
            source: an iterator of (x, y), where each is a number or a sequence of numbers; or a
                function that gets a round's number and returns such an iterator, for data that
                change from round to round.
            idle: a function that is called again and again between rounds, with or without a
                connection, once this board has learned in one: the place to predict.
        """
        try:
            while True:
                try:
                    self._turn(source, idle)
                except (OSError, MQTTException) as error:
                    self._lose(error)
        except StopIteration:
            _say("the samples have ended")
            self._leave()

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

    def _turn(self, source, idle):
        if not self._link.is_up:
            self._connect(idle)
        elif self._new_plan:
            self._adopt()
        elif self._update:
            self._send()
        elif not self._is_asked():
            self._link.poll(0 if self._can_idle(idle) else _IDLE)
        elif self._model.version != self._round.version:
            self._fetch()
        else:
            self._train(source)

    # --- The connection

    def _can_idle(self, idle):
        """Call idle, if there is one and this board has learned; whether it was called."""
        if idle is None or not self._has_learned:
            return False
        idle()
        return True

    def _connect(self, idle):
        # Boards that lost one broker together must not return as one.
        longest = min(_RECONNECT << min(self._failures, 16), _RECONNECT_MOST)
        wait = getrandbits(16) * longest >> 16
        start = time.ticks_ms()
        while time.ticks_diff(time.ticks_ms(), start) < wait:
            if not self._can_idle(idle):
                time.sleep_ms(10)
        self._link.open()
        for topic in self._handlers:
            self._link.subscribe(topic, 1)
        self._report("ready")
        _say("connected to %s as %s" % (self._broker, self.board))
        self._failures = 0

    def _report(self, state, reason=None):
        gc.collect()
        facts = {
            "state": state,
            "client": VERSION,
            "firmware": ".".join(str(part) for part in sys.implementation.version[:3]),
            "platform": sys.platform,
            "heap_free": gc.mem_free(),
        }
        if reason:
            facts["reason"] = reason
        self._link.publish(self._state, json.dumps(facts).encode(), True, 1)

    def _lose(self, error):
        if self._failures == 0:
            _say("no connection to %s (%s); it keeps trying" % (self._broker, _why(error)))
        self._failures += 1
        self._link.close()

    def _leave(self):
        try:
            if self._link.is_up:
                self._report("stopped")
                self._link.disconnect()
        except (OSError, MQTTException):
            pass  # the last will says as much
        self._link.close()

    # --- What messages change

    def _on_message(self, topic, payload):
        topic = bytes(topic)  # a long one is a view
        handler = self._handlers.get(topic, self._on_chunk)
        try:
            handler(payload)
        except MessageError as error:
            _say("%s: %s" % (topic.decode(), error))

    def _on_plan(self, payload):
        plan = messages.unpack_plan(payload) if payload else self._plan
        if plan != self._plan:
            self._new_plan = plan
            self._is_stale = True

    def _on_round(self, payload):
        before = self._round
        # An empty message means that no round is open.
        now = self._round = messages.unpack_round(payload) if payload else None
        is_same = before is not None and now is not None and now[:3] == before[:3]
        if not is_same:
            self._is_stale = True
        if now is None or now.round != self._trained:
            self._give_up()

    def _on_receipt(self, payload):
        receipt = messages.unpack_receipt(payload)
        if receipt.round == self._trained and self.board in receipt.boards:
            self._update = None
            self._resend = _RESEND

    def _on_delta(self, payload):
        # One that does not follow is no loss: the model is fetched when a round asks for it.
        if payload and self._model and self._model.move(messages.unpack_delta(payload)):
            # There is a next version, so the round is over.
            self._is_stale = True
            self._round = None
            self._give_up()

    def _on_chunk(self, payload):
        if payload and self._model:
            self._model.take(messages.unpack_chunk(payload))

    def _give_up(self):
        """End an update's life with its round's.

        One that was sent may be journaled, and what is journaled must not be sent again; so only
        one that never was goes back to what waits for the next update.
        """
        if self._update and not self._is_sent:
            self._codec.take_back(self._changes)
        self._update = None
        self._resend = _RESEND

    # --- What a turn does

    def _adopt(self):
        """Take on a new plan: give up the old network before the new one is made."""
        plan = self._new_plan
        self._new_plan = self._plan = self._trained = self._update = None
        self._network = self._model = self._codec = self._writer = None
        self._has_learned = False
        need = bytes_needed(plan)
        tidy(True)
        gc.collect()
        _say("the model takes %d bytes of heap; %d are free" % (need, gc.mem_free()))
        try:
            network = Network(plan)
            tensors = network.tensors
            parameters = len(network.theta)
            block = sparse.block_size(plan.top, parameters, len(tensors), plan.value_bits)
            self._writer = messages.UpdateWriter(self.board, block)
            residual = array("h", bytes(2 * parameters)) if plan.feedback else None
            self._codec = sparse.Codec(tensors, plan.value_bits, residual)
        except (ModelError, MemoryError) as error:
            _say("this board sits out: %s" % error)
            self._report("refused", str(error))
            return
        finally:
            tidy(False)
        self._plan = plan
        self._network = network
        self._model = Model(plan.lineage, network.base, self._codec)
        gc.collect()

    def _is_asked(self):
        asked = self._round
        return (
            asked is not None
            and self._plan is not None
            and asked.lineage == self._plan.lineage
            and asked.round != self._trained
            and ticket(self.board, asked.round) < asked.asked
        )

    def _fetch(self):
        """Get the whole model; only meanwhile are its chunks subscribed to, for they are many."""
        self._model.begin_fetch()
        self._link.subscribe(self._chunks, 1)
        start = time.ticks_ms()
        while self._model.version < 0 and not self._new_plan:
            if time.ticks_diff(time.ticks_ms(), start) > _FETCH:
                break
            self._link.poll(_IDLE)
        self._link.unsubscribe(self._chunks)

    def _train(self, source):
        plan = self._plan
        network = self._network
        number = self._round.round
        samples = source(number) if callable(source) else source
        start = time.ticks_ms()
        self._is_stale = False
        network.begin(fnv1a("%s/%s/%d" % (self.fleet, self.board, number)))
        try:
            support_loss = self._learn(samples, plan.support, _LOCAL)
            query_loss = self._learn(samples, plan.query, _GLOBAL)
        except StopIteration:
            if not callable(source):
                raise
            _say("round %d: its samples ended early; this board sits it out" % number)
            self._trained = number
            return
        if self._is_stale:
            return
        gc.collect()  # else heap_free would say when the last collection was
        facts = (
            plan.support,
            plan.query,
            support_loss,
            query_loss,
            network.told,
            self._link.bytes_up,
            self._link.bytes_down,
            time.ticks_diff(time.ticks_ms(), start) & 0x3FFFFFFF,
            gc.mem_free(),
        )
        nonce = int.from_bytes(os.urandom(4), "big")
        begin = self._writer.begin(plan.lineage, number, nonce, facts)
        end = self._codec.encode(network.theta, network.base, plan.top, self._writer.out, begin)
        self._update = self._writer.end(end)
        self._changes = self._update[begin:]
        self._is_sent = False
        self._trained = number
        self._has_learned = True

    def _learn(self, samples, count, local):
        """Learn from so many samples on one side, or until the round is over; the sum of losses.

        Nothing here or below allocates; what the source of samples allocates is its own.
        """
        network = self._network
        network.begin_phase()
        while count and not self._is_stale:
            try:
                x, y = next(samples)
                network.read(x, y)
            except (ModelError, TypeError, ValueError, OSError) as error:
                self._skip(error)  # also None for a sample, and a sensor that fails
            else:
                network.step(local)
                count -= 1
            self._listen()
        return network.loss

    def _skip(self, error):
        if self.skipped == 0:
            _say("a sample is skipped, and so will be others like it: %s" % error)
        self.skipped += 1

    def _listen(self):
        """Hear what the broker says between two samples. Training goes on without a connection."""
        if self._link.is_up:
            try:
                self._link.poll()
            except (OSError, MQTTException) as error:
                self._lose(error)

    def _send(self):
        """Send the update and wait for its receipt; the next turn sends it again if none comes."""
        self._is_sent = True
        self._link.publish(self._up, self._update, False, 1)
        wait = self._resend + (getrandbits(16) * self._resend >> 17)
        start = time.ticks_ms()
        while self._update and time.ticks_diff(time.ticks_ms(), start) < wait:
            self._link.poll(wait)
        self._resend = min(2 * self._resend, _RESEND_MOST)
