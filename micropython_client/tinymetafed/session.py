"""A board's round as a table of states: what a board does in each, and what leads to the next.

A step does the one thing of its state (_STEPS). An event, which a step or a message finds, may lead
to another state (_MOVES); nothing else does. What outlives states is data: the plan, the open
round, an update without a receipt. idle looks at them and decides what is next.
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

from tinymetafed import cohort, link, messages, sparse, tidy
from tinymetafed.errors import MessageError, ModelError
from tinymetafed.model import Model
from tinymetafed.network import Network, bytes_needed

VERSION = "0.1.0"

# --- The table; docs/board.md shows it

STATES = (
    "offline",
    "idle",
    "adopting",
    "fetching",
    "training",
    "encoding",
    "sending",
    "waiting",
    "stopped",
)
_OFFLINE = const(0)
"""Without a connection: waits a random time, then tries to connect."""
_IDLE = const(1)
"""Hears messages and looks at the battery; where something is to be done, goes on at once."""
_ADOPTING = const(2)
"""Gives up the old network and makes the one of a new plan."""
_FETCHING = const(3)
"""Hears the chunks of a model version."""
_TRAINING = const(4)
"""Learns from one sample a step, with or without a connection: first support, then query."""
_ENCODING = const(5)
"""Writes the update."""
_SENDING = const(6)
"""Publishes the update."""
_WAITING = const(7)
"""Hears messages until the update's receipt."""
_STOPPED = const(8)
"""Has left the fleet."""

_CONNECTED = const(0)
"""The broker knows that this board is ready."""
_LOST = const(1)
"""There is no connection, or a try to connect has failed."""
_PLAN = const(2)
"""The fleet has another plan than this board."""
_ADOPTED = const(3)
"""The network is there, or this board has no room for it and sits out."""
_UNANSWERED = const(4)
"""There is an update without a receipt."""
_OUTDATED = const(5)
"""A round invites this board and works on another version than it has."""
_FETCHED = const(6)
"""The version is there; or it does not come in time, or is not wanted any more."""
_INVITED = const(7)
"""A round invites this board and works on the version that it has."""
_LEARNED = const(8)
"""It has learned from the last sample of the round."""
_SPOILED = const(9)
"""The training is in vain: its round is over, or works on another version now."""
_SHORT = const(10)
"""The samples of this round ended early; those of the next may do."""
_ENDED = const(11)
"""The samples have ended."""
_WRITTEN = const(12)
"""The update is written."""
_SENT = const(13)
"""The broker has the update."""
_SILENT = const(14)
"""No receipt has come in time: the update is sent again."""
_OVER = const(15)
"""The receipt has come, or the update's round is over."""

# State, event, state after it. An event that a state does not name leaves it as it is.
_MOVES = (
    _OFFLINE << 8 | _CONNECTED << 4 | _IDLE,
    _OFFLINE << 8 | _LOST << 4 | _OFFLINE,
    _IDLE << 8 | _LOST << 4 | _OFFLINE,
    _IDLE << 8 | _PLAN << 4 | _ADOPTING,
    _IDLE << 8 | _UNANSWERED << 4 | _SENDING,
    _IDLE << 8 | _OUTDATED << 4 | _FETCHING,
    _IDLE << 8 | _INVITED << 4 | _TRAINING,
    _ADOPTING << 8 | _ADOPTED << 4 | _IDLE,
    _ADOPTING << 8 | _LOST << 4 | _OFFLINE,
    _FETCHING << 8 | _FETCHED << 4 | _IDLE,
    _FETCHING << 8 | _LOST << 4 | _OFFLINE,
    _TRAINING << 8 | _LEARNED << 4 | _ENCODING,
    _TRAINING << 8 | _SPOILED << 4 | _IDLE,
    _TRAINING << 8 | _SHORT << 4 | _IDLE,
    _TRAINING << 8 | _ENDED << 4 | _STOPPED,
    _TRAINING << 8 | _PLAN << 4 | _IDLE,
    _ENCODING << 8 | _WRITTEN << 4 | _IDLE,
    _ENCODING << 8 | _SPOILED << 4 | _IDLE,
    _ENCODING << 8 | _PLAN << 4 | _IDLE,
    _SENDING << 8 | _SENT << 4 | _WAITING,
    _SENDING << 8 | _OVER << 4 | _IDLE,
    _SENDING << 8 | _PLAN << 4 | _IDLE,
    _SENDING << 8 | _LOST << 4 | _OFFLINE,
    _WAITING << 8 | _OVER << 4 | _IDLE,
    _WAITING << 8 | _SILENT << 4 | _SENDING,
    _WAITING << 8 | _PLAN << 4 | _IDLE,
    _WAITING << 8 | _LOST << 4 | _OFFLINE,
)

# Topics, as config.py orders them.
_UP = const(0)
_STATE = const(1)
_FULL = const(2)
_CANARY = const(3)
_HEARD = const(4)  # and those after it: plan, delta, round, receipt
_DELTA = const(5)

_LEVELS = const(5)  # percent of the battery that are worth a message

# Milliseconds.
_LOOK = const(1000)  # between two looks at the battery
_FETCH = const(30000)  # that fetching a model may take
_RESEND = const(2000)  # until an update without a receipt is sent again; doubles each time ...
_RESEND_MOST = const(32000)  # ... up to this
_RECONNECT = const(500)  # until the first try to connect, at most; doubles each time ...
_RECONNECT_MOST = const(60000)  # ... up to this

# What an announced round is to this board: the version that it works on, stable or canary, where
# the chunks of that lie, and whether this board is invited.
Task = namedtuple("Task", ("lineage", "round", "version", "max_age", "chunks", "is_invited"))


def say(text):
    print("tinymetafed:", text)


class Session:
    """A board's part in its fleet.

    Args:
        settings: those of config.SETTINGS, completed.
    """

    def __init__(self, settings):
        self.board = settings["board"]
        self.fleet = settings["fleet"]
        self.skipped = 0  # samples that were not learned from because they do not fit the model
        topics = self._topics = settings["topics"]
        self._chunks = topics[_FULL]  # where those that are being fetched lie
        # In the order in which a board that connects needs what is retained there.
        self._handlers = OrderedDict(
            zip(  # noqa: B905 - MicroPython's has no strict
                topics[_HEARD:],
                (self._on_plan, self._on_delta, self._on_round, self._on_receipt),
            )
        )
        self._link = link.Link(settings)
        self._link.set_callback(self._on_message)
        self._link.set_last_will(topics[_STATE], b'{"state":"lost"}', True, 1)
        self.state = "idle"  # which finds that there is no connection
        self._time = time.ticks_ms()  # when this state's time is over; or when training began
        self._failures = 0  # to connect, since the last success
        self._fault = None  # of a message that could not be read, since a plan or round could
        self._plan = None
        self._new_plan = None  # to be adopted
        self._network = None
        self._model = None
        self._codec = None
        self._writer = None
        self._round = None  # the open one, as a Task
        self._mine = None  # the one that this board learns in, or learned in last
        self._source = None  # of samples, as run takes it
        self._samples = None  # of the round
        self._todo = 0  # samples of the round that are still to be learned from
        self._support_loss = 0
        self._later = None  # deltas that wait for the end of a training that may be late
        self._has_learned = False  # in any round of this plan
        self._update = None  # without a receipt
        self._changes = None  # its sparse block, as long as it was not sent, perhaps in part
        self._resend = _RESEND
        self._battery = None
        self._reported = ("ready", None, None)  # last on the state topic: state, reason, battery
        self._looked = time.ticks_ms()  # at the battery

    def _go(self, event):
        """Move as the table says; whether it names this event."""
        now = STATES.index(self.state) << 4 | event
        for move in _MOVES:
            if move >> 4 == now:
                self.state = STATES[move & 15]
                return True
        return False

    # --- What a step does: whether it did something, or only waited

    def _connect(self, milliseconds):
        left = time.ticks_diff(self._time, time.ticks_ms())
        if left > 0:
            time.sleep_ms(min(left, milliseconds))
            return False
        self._link.open()
        for topic in self._handlers:
            self._link.subscribe(topic, 1)
        self._report("ready")
        say("connected to %s as %s" % (self._link.peer, self.board))
        self._failures = 0
        return self._go(_CONNECTED)

    def _look(self, milliseconds):
        later = self._later
        self._later = None
        for payload in later or ():
            self._on_message(self._topics[_DELTA], payload)
        if not self._link.is_up:
            self._be_offline()
        elif self._new_plan:
            self._go(_PLAN)
        elif self._update:
            self._go(_UNANSWERED)
        elif not self._is_invited():
            self._watch_battery()
            return self._link.poll(milliseconds)
        elif self._model.version != self._round.version:
            self._go(_OUTDATED)
            self._time = time.ticks_add(time.ticks_ms(), _FETCH)
            self._chunks = self._round.chunks
            self._model.begin_fetch()
            # Only while the model is fetched, for there are many.
            self._link.subscribe(self._chunks + b"+", 1)
        else:
            self._begin_training()
        return True

    def _adopt(self, _):
        """Take on a new plan: give up the old network before the new one is made."""
        plan = self._new_plan
        self._new_plan = self._plan = self._mine = self._update = None
        self._network = self._model = self._codec = self._writer = None
        self._has_learned = False
        need = bytes_needed(plan)
        tidy(True)
        gc.collect()
        say("the model takes %d bytes of heap; %d are free" % (need, gc.mem_free()))
        try:
            network = Network(plan)
            tensors = network.tensors
            parameters = len(network.theta)
            block = sparse.block_size(plan.top, parameters, len(tensors), plan.value_bits)
            self._writer = messages.UpdateWriter(self.board, block)
            residual = array("h", bytes(2 * parameters)) if plan.feedback else None
            self._codec = sparse.Codec(tensors, plan.value_bits, residual)
        except (ModelError, MemoryError) as error:
            say("this board sits out: %s" % error)
            self._report("refused", str(error))
        else:
            self._plan = plan
            self._network = network
            self._model = Model(plan.lineage, network.base, self._codec)
            if self._reported[0] == "refused":
                self._report("ready")
        finally:
            tidy(False)
        gc.collect()
        return self._go(_ADOPTED)

    def _fetch(self, milliseconds):
        wanted = self._round
        left = time.ticks_diff(self._time, time.ticks_ms())
        if (
            self._model.version < 0
            and not self._new_plan
            and left > 0
            and wanted
            and wanted.chunks == self._chunks  # else a canary has begun or ended
        ):
            return self._link.poll(min(left, milliseconds))
        self._link.unsubscribe(self._chunks + b"+")
        return self._go(_FETCHED)

    def _train(self, _, count=1):
        """Learn from one sample, or from so many, which saves a call for each.

        Nothing here or below allocates; what the source of samples allocates is its own.
        """
        network = self._network
        query = self._plan.query
        samples = self._samples
        todo = self._todo
        while count and self.state == "training":
            count -= 1
            try:
                x, y = next(samples)  # type: ignore[arg-type]
                network.read(x, y)
            except StopIteration:
                if callable(self._source):
                    say(
                        "round %d: its samples ended early; this board sits it out"
                        % self._mine.round
                    )
                    return self._go(_SHORT)
                say("the samples have ended")
                self._leave("stopped")
                return self._go(_ENDED)
            except (ModelError, TypeError, ValueError, OSError) as error:
                # Also None for a sample, and a sensor that fails.
                if self.skipped == 0:
                    say("a sample is skipped, and so will be others like it: %s" % error)
                self.skipped += 1
            else:
                network.step(todo > query)
                todo -= 1
                self._todo = todo
                if todo == query:
                    self._support_loss = network.loss
                    network.begin_phase()
                if not todo:
                    self._go(_LEARNED)
            if self._link.is_up:
                self._link.poll()
        return True

    def _encode(self, _):
        plan = self._plan
        network = self._network
        gc.collect()  # else heap_free would say when the last collection was
        facts = (
            plan.support,
            plan.query,
            self._support_loss,
            network.loss,
            network.correct,
            self._link.bytes_up,
            self._link.bytes_down,
            time.ticks_diff(time.ticks_ms(), self._time) & 0x3FFFFFFF,
            gc.mem_free(),
        )
        nonce = int.from_bytes(os.urandom(4), "big")
        begin = self._writer.begin(plan.lineage, self._mine.round, nonce, facts)
        end = self._codec.encode(network.theta, network.base, plan.top, self._writer.out, begin)
        self._update = self._writer.end(end)
        self._changes = self._update[begin:]
        self._has_learned = True
        return self._go(_WRITTEN)

    def _send(self, _):
        self._changes = None
        self._link.publish(self._topics[_UP], self._update, False, 1)
        wait = self._resend + (getrandbits(16) * self._resend >> 17)
        self._time = time.ticks_add(time.ticks_ms(), wait)
        self._go(_SENT)
        return True

    def _wait(self, milliseconds):
        left = time.ticks_diff(self._time, time.ticks_ms())
        if left > 0:
            return self._link.poll(min(left, milliseconds))
        self._resend = min(2 * self._resend, _RESEND_MOST)
        return self._go(_SILENT)

    def _listen(self, milliseconds=0):
        """Hear what the broker says, with or without a connection; whether a message came."""
        if self._link.is_up:
            try:
                return self._link.poll(milliseconds)
            except (OSError, MQTTException) as error:
                self._lose(error)
        return False

    # In the order of the states.
    _STEPS = (_connect, _look, _adopt, _fetch, _train, _encode, _send, _wait, _listen)

    # --- What idle decides

    def _is_invited(self):
        task = self._round
        plan = self._plan
        mine = self._mine
        return (
            task
            and plan
            and task.is_invited
            and task.lineage == plan.lineage
            and not (mine and mine.round == task.round)
        )

    def _begin_training(self):
        task = self._round
        plan = self._plan
        source = self._source
        self._samples = source(task.round) if callable(source) else source
        self._mine = task
        self._later = [] if task.max_age else None
        self._time = time.ticks_ms()
        self._network.begin(cohort.fnv1a("%s/%s/%d" % (self.fleet, self.board, task.round)))
        self._network.begin_phase()
        self._support_loss = 0
        self._todo = plan.support + plan.query
        self._go(_INVITED)
        if not self._todo:
            self._go(_LEARNED)

    # --- The connection

    def _lose(self, error):
        if self._failures == 0:
            why = repr(error)
            if isinstance(error, MQTTException) and error.args[0] in (4, 5):
                why = "it refuses this user or password"  # MQTT 3.1.1, table 3.1
            say("no connection to %s (%s); it keeps trying" % (self._link.peer, why))
        self._failures += 1
        self._link.close()
        self._be_offline()

    def _be_offline(self):
        if self._go(_LOST):
            # Boards that lost one broker together must not return as one.
            longest = min(_RECONNECT << min(self._failures, 16), _RECONNECT_MOST)
            wait = getrandbits(16) * longest >> 16
            self._time = time.ticks_add(time.ticks_ms(), wait)

    def _leave(self, state):
        try:
            if self._link.is_up:
                self._report(state)
                self._link.disconnect()
        except (OSError, MQTTException):
            pass  # the last will says as much
        self._link.close()

    def _report(self, state, reason=None):
        level = self._level()
        self._reported = (state, reason, level)
        gc.collect()
        facts = {
            "state": state,
            "format": messages.FORMAT,
            "client": VERSION,
            "firmware": "%d.%d.%d" % sys.implementation.version[:3],
            "platform": sys.platform,
            "heap_free": gc.mem_free(),
        }
        if reason:
            facts["reason"] = reason
        if level is not None:
            facts["battery"] = level
        self._link.publish(self._topics[_STATE], json.dumps(facts).encode(), True, 1)

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
        if self._battery and time.ticks_diff(now, self._looked) >= _LOOK:
            self._looked = now
            state, reason, before = self._reported
            level = self._level()
            if level is not None and (before is None or abs(level - before) >= _LEVELS):
                self._report(state, reason)

    # --- What messages change

    def _on_message(self, topic, payload):
        topic = bytes(topic)  # a long one is a view
        handler = self._handlers.get(topic)
        try:
            if handler:
                handler(payload)
            elif payload and self._model and topic.startswith(self._chunks):
                # Of the model that is being fetched, and not a late one of another.
                self._model.take(messages.unpack_chunk(payload))
        except MessageError as error:
            # Once, and not for each message of an aggregator that speaks another format.
            fault = str(error)
            if fault != self._fault:
                self._fault = fault
                say("%s: %s" % (topic.decode(), fault))

    def _on_plan(self, payload):
        if not payload:
            return
        plan = messages.unpack_plan(payload)
        self._fault = None
        if plan != self._plan:
            self._new_plan = plan
            self._go(_PLAN)

    def _on_round(self, payload):
        now = None  # an empty message: no round is open
        if payload:
            heard = messages.unpack_round(payload)
            self._fault = None
            version = heard.version
            chunks = self._topics[_FULL]
            if heard.canary_version and cohort.is_canary(
                self.board, heard.canary_version, heard.canary_share
            ):
                version = heard.canary_version
                chunks = self._topics[_CANARY]
            invited = cohort.is_invited(self.board, heard.round, heard.ticket_limit, heard.chosen)
            now = Task(heard.lineage, heard.round, version, heard.max_age, chunks, invited)
        self._round = now
        mine = self._mine
        if mine is None:
            return
        age = now.round - mine.round if now and now.lineage == mine.lineage else -1
        if age < 0 or age > now.max_age:
            self._spoil()
            self._end_update()
        elif age == 0 and now.version != mine.version:
            self._spoil()

    def _on_receipt(self, payload):
        receipt = messages.unpack_receipt(payload)
        if self._mine and receipt.round == self._mine.round and self.board in receipt.boards:
            self._changes = None  # nothing to take back: it is journaled
            self._end_update()

    def _on_delta(self, payload):
        model = self._model
        if not payload or not model:
            return
        if self._later is not None:
            # No more bytes than the model has: then it is as well to fetch that.
            if len(payload) + sum(map(len, self._later)) <= len(self._network.base):
                self._later.append(bytes(payload))
            return
        delta = messages.unpack_delta(payload)
        before = model.version
        try:
            # One that does not follow is no loss: the model is fetched when a round asks for it.
            model.move(delta)
        finally:
            if model.version != before:
                self._spoil()  # what it started from has moved
                task = self._round
                if task and delta.version > task.version:
                    # There is a next version, so the round is over; late, an update may count.
                    self._round = None
                    if not task.max_age:
                        self._end_update()

    def _spoil(self):
        if self._go(_SPOILED):
            self._mine = None  # it may be invited again, on another version

    def _end_update(self):
        """End an update's life, with its receipt or with its round.

        One that was sent may be journaled, and what is journaled must not be sent again; so only
        one that never was goes back to what waits for the next update.
        """
        if self._update and self._changes:
            self._codec.take_back(self._changes)
        self._update = None
        self._resend = _RESEND
        self._go(_OVER)
