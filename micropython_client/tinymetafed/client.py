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
from collections import OrderedDict, namedtuple
from random import getrandbits

from micropython import const
from umqtt.simple import MQTTException

from tinymetafed import link, messages, sparse, tidy
from tinymetafed.cohort import fnv1a, is_canary, is_invited
from tinymetafed.errors import MessageError, ModelError
from tinymetafed.model import Model
from tinymetafed.network import Network, bytes_needed

VERSION = "0.1.0"
_LOCAL = const(1)
_GLOBAL = const(0)
_SHARDS = const(64)
_STEP = const(5)  # percent of the battery that are worth a message

# Milliseconds.
_IDLE = const(1000)  # to wait for a message when there is nothing to do
_FETCH = const(30000)  # that fetching a model may take
_RESEND = const(2000)  # until an update without a receipt is sent again; doubles each time ...
_RESEND_MOST = const(32000)  # ... up to this
_SETTLE = const(500)  # of silence, until all that is retained has been heard
_RECONNECT = const(500)  # until the first try to connect, at most; doubles each time ...
_RECONNECT_MOST = const(60000)  # ... up to this

# What an announced round is to this board: the version that it works on, stable or canary, where
# the chunks of that lie, and whether this board is invited.
Task = namedtuple("Task", ("lineage", "round", "version", "max_age", "chunks", "is_invited"))


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
        self._full = (root + "model/full/").encode()
        self._canary = (root + "model/canary/").encode()
        self._chunks = self._full  # where those that are being fetched lie
        self._delta = (root + "model/delta").encode()
        # In the order in which a board that connects needs what is retained there.
        self._handlers = OrderedDict(
            (
                ((root + "plan").encode(), self._on_plan),
                (self._delta, self._on_delta),
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
        self._round = None  # the open one, as a Task
        self._mine = None  # the one that this board learns in, or learned in last
        self._has_learned = False  # in any round of this plan
        self._is_stale = False  # the training is in vain
        self._later = None  # deltas that wait for the end of a training that may be late
        self._update = None  # encoded, and not yet journaled
        self._changes = None  # its sparse block
        self._is_sent = False  # perhaps only in part
        self._resend = _RESEND
        self._battery = None
        self._told = ("ready", None, None)  # last on the state topic: state, reason, battery
        self._looked = time.ticks_ms()  # at the battery

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
        self._battery = battery
        try:
            while True:
                try:
                    self._turn(source, idle)
                except (OSError, MQTTException) as error:
                    self._lose(error)
        except StopIteration:
            _say("the samples have ended")
            self._leave("stopped")

    def rest(self):
        """Go to sleep, to be called by run's idle function: say so, and leave the broker in order.

        It first hears out what the broker has to say. run connects again when idle returns.

        Returns:
            Whether this board is off the network, and nothing waits for it: sleep now. False where
            a round asks for it, or where there was no connection.
        """
        start = time.ticks_ms()
        while self._listen(_SETTLE) and time.ticks_diff(time.ticks_ms(), start) < _SETTLE:
            pass
        if not self._link.is_up or self._new_plan or self._update or self._is_invited():
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

    def _turn(self, source, idle):
        if not self._link.is_up:
            self._connect(idle)
        elif self._new_plan:
            self._adopt()
        elif self._update:
            self._send()
        elif not self._is_invited():
            self._watch_battery()
            if not self._link.poll() and not self._can_idle(idle):
                self._link.poll(_IDLE)
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
        level = self._level()
        self._told = (state, reason, level)
        gc.collect()
        facts = {
            "state": state,
            "format": messages.FORMAT,
            "client": VERSION,
            "firmware": ".".join(str(part) for part in sys.implementation.version[:3]),
            "platform": sys.platform,
            "heap_free": gc.mem_free(),
        }
        if reason:
            facts["reason"] = reason
        if level is not None:
            facts["battery"] = level
        self._link.publish(self._state, json.dumps(facts).encode(), True, 1)

    def _level(self):
        """The battery's level in whole percent, or None."""
        try:
            level = self._battery and self._battery()
        except OSError:
            level = None  # as of any other sensor, a reading may fail
        return None if level is None else max(0, min(100, round(level)))

    def _watch_battery(self):
        """Report the state again where the battery's level is another; looked at once a second."""
        now = time.ticks_ms()
        if self._battery and time.ticks_diff(now, self._looked) >= _IDLE:
            self._looked = now
            state, reason, before = self._told
            level = self._level()
            if level is not None and (before is None or abs(level - before) >= _STEP):
                self._report(state, reason)

    def _lose(self, error):
        if self._failures == 0:
            _say("no connection to %s (%s); it keeps trying" % (self._broker, _why(error)))
        self._failures += 1
        self._link.close()

    def _leave(self, state):
        try:
            if self._link.is_up:
                self._report(state)
                self._link.disconnect()
        except (OSError, MQTTException):
            pass  # the last will says as much
        self._link.close()

    # --- What messages change

    def _on_message(self, topic, payload):
        topic = bytes(topic)  # a long one is a view
        handler = self._handlers.get(topic)
        try:
            if handler:
                handler(payload)
            elif topic.startswith(self._chunks):  # not a late one of another model
                self._on_chunk(payload)
        except MessageError as error:
            _say("%s: %s" % (topic.decode(), error))

    def _on_plan(self, payload):
        plan = messages.unpack_plan(payload) if payload else self._plan
        if plan != self._plan:
            self._new_plan = plan
            self._is_stale = True

    def _on_round(self, payload):
        # An empty message means that no round is open.
        now = self._round = self._task(messages.unpack_round(payload)) if payload else None
        mine = self._mine
        if mine is None:
            return
        age = now.round - mine.round if now and now.lineage == mine.lineage else -1
        if age < 0 or age > now.max_age:
            self._is_stale = True
            self._give_up()
        elif age == 0 and now.version != mine.version:
            self._is_stale = True

    def _task(self, announced):
        board = self.board
        number = announced.round
        version = announced.version
        chunks = self._full
        if announced.canary_version and is_canary(
            board, announced.canary_version, announced.canary_share
        ):
            version = announced.canary_version
            chunks = self._canary
        invited = is_invited(board, number, announced.ticket_limit, announced.chosen)
        return Task(announced.lineage, number, version, announced.max_age, chunks, invited)

    def _on_receipt(self, payload):
        receipt = messages.unpack_receipt(payload)
        if self._mine and receipt.round == self._mine.round and self.board in receipt.boards:
            self._update = None
            self._resend = _RESEND

    def _on_delta(self, payload):
        model = self._model
        if not payload or not model:
            return
        if self._later is not None:
            # No more bytes than the model has: then it is as well to fetch that.
            if len(payload) + sum([len(kept) for kept in self._later]) <= len(self._network.base):
                self._later.append(bytes(payload))
            return
        delta = messages.unpack_delta(payload)
        before = model.version
        try:
            # One that does not follow is no loss: the model is fetched when a round asks for it.
            model.move(delta)
        finally:
            if model.version != before:
                self._is_stale = True  # what it started from has moved
                self._end_round(delta.version)

    def _end_round(self, version):
        """There is a next version, so the round is over; late, an update may still count."""
        task = self._round
        if task and version > task.version:
            self._round = None
            if not task.max_age:
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
        self._new_plan = self._plan = self._mine = self._update = None
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
        if self._told[0] == "refused":
            self._report("ready")
        gc.collect()

    def _is_invited(self):
        invited = self._round
        return (
            invited is not None
            and invited.is_invited
            and self._plan is not None
            and invited.lineage == self._plan.lineage
            and (self._mine is None or invited.round != self._mine.round)
        )

    def _fetch(self):
        """Get the whole model; only meanwhile are its chunks subscribed to, for they are many."""
        self._chunks = self._round.chunks
        topic = self._chunks + b"+"
        self._model.begin_fetch()
        self._link.subscribe(topic, 1)
        start = time.ticks_ms()
        while self._model.version < 0 and not self._new_plan:
            if time.ticks_diff(time.ticks_ms(), start) > _FETCH:
                break
            if not self._round or self._round.chunks != self._chunks:
                break  # a canary has begun or ended
            self._link.poll(_IDLE)
        self._link.unsubscribe(topic)

    def _train(self, source):
        task = self._round
        samples = source(task.round) if callable(source) else source
        self._mine = task
        self._is_stale = False
        later = self._later = [] if task.max_age else None
        try:
            self._write_update(samples, task.round)
        except StopIteration:
            if not callable(source):
                raise
            _say("round %d: its samples ended early; this board sits it out" % task.round)
        finally:
            self._later = None
        if self._is_stale:
            self._mine = None  # it may be asked of this board again, on another version
        for payload in later or ():
            self._on_message(self._delta, payload)

    def _write_update(self, samples, number):
        plan = self._plan
        network = self._network
        start = time.ticks_ms()
        network.begin(fnv1a("%s/%s/%d" % (self.fleet, self.board, number)))
        support_loss = self._learn(samples, plan.support, _LOCAL)
        query_loss = self._learn(samples, plan.query, _GLOBAL)
        if self._is_stale:
            return
        gc.collect()  # else heap_free would say when the last collection was
        facts = (
            plan.support,
            plan.query,
            support_loss,
            query_loss,
            network.correct,
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

    def _listen(self, milliseconds=0):
        """Hear what the broker says, with or without a connection; whether a message came."""
        if self._link.is_up:
            try:
                return self._link.poll(milliseconds)
            except (OSError, MQTTException) as error:
                self._lose(error)
        return False

    def _send(self):
        """Send the update and wait for its receipt; the next turn sends it again if none comes."""
        self._is_sent = True
        self._link.publish(self._up, self._update, False, 1)
        wait = self._resend + (getrandbits(16) * self._resend >> 17)
        start = time.ticks_ms()
        while self._update and time.ticks_diff(time.ticks_ms(), start) < wait:
            self._link.poll(wait)
        self._resend = min(2 * self._resend, _RESEND_MOST)
