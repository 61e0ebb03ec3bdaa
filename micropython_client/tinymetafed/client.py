"""A board's part in the fleet: hear of a round, fetch its model, learn, send, and send again until the receipt.

The client is a loop of turns (Client._turn). Messages only change what the next turn finds; a lost connection ends a
turn, never the loop.
"""

import gc
import json
import os
import sys
import time
from binascii import crc32
from random import getrandbits

from micropython import const
from umqtt.simple import MQTTException

from tinymetafed import config, link, messages, sparse
from tinymetafed.errors import MessageError, ModelError
from tinymetafed.network import Network

VERSION = "0.1.0"
_SUPPORT = const(1)
_QUERY = const(0)
_CHUNK = const(1024)
_IDLE = const(1000)  # milliseconds to wait for a message when there is nothing to do
_RESEND = const(2000)  # milliseconds until an update without a receipt is sent again; doubles each time
_RESEND_MOST = const(32000)
_RECONNECT = const(500)  # milliseconds, at most, until the first try to connect; doubles each time
_RECONNECT_MOST = const(60000)
_FETCH = const(30000)  # milliseconds that fetching a model may take
_ANY_VERSION = const(-1)
_SHARDS = const(64)


def fnv1a(text):
    """32-bit FNV-1a hash, as on the host."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def ticket(board, round_):
    """The board's ticket in the draw for a round's cohort, as in the host's protocol/cohort.py."""
    value = fnv1a("%s/%d" % (board, round_))
    for _ in range(2):
        value = (value ^ value >> 16) * 1664525 & 0xFFFFFFFF
    return value ^ value >> 16


def _say(text):
    print("tinymetafed:", text)


def _why(error):
    if isinstance(error, MQTTException) and error.args[0] in (4, 5):  # MQTT 3.1.1, table 3.1
        return "the broker refuses this user or password"
    return repr(error)


class Client:
    """A board of a fleet.

    Args:
        settings: the path of a JSON file, or a dict, with the settings of config.SETTINGS.

    Raises:
        ConfigError: a setting is wrong; says which and what to write.
    """

    def __init__(self, settings):
        settings = config.load(settings)
        self.board = settings["board"]
        self.fleet = settings["fleet"]
        self.skipped = 0
        """Samples that were not learned from because they do not fit the model."""
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
        self._full = (root + "model/full/+").encode()
        self._handlers = {
            (root + "spec").encode(): self._on_plan,
            (root + "model/delta").encode(): self._on_delta,
            (root + "round").encode(): self._on_round,
            ("%sreceipt/%d" % (root, shard)).encode(): self._on_receipt,
        }
        self._link.set_callback(self._on_message)
        self._link.set_last_will(self._state, b'{"state":"lost"}', True, 1)
        self._failures = 0
        self._plan = None
        self._new_plan = None
        self._network = None
        self._codec = None
        self._writer = None
        self._version = _ANY_VERSION
        self._chunks = None  # while a model is fetched: one byte a chunk, 1 where it has come
        self._fetching = _ANY_VERSION
        self._round = None
        self._trained = None  # the round that this board last learned in
        self._is_stale = False  # set when the round in training is over
        self._update = None  # encoded, and not yet journaled
        self._resend = _RESEND

    def run(self, source):
        """Take part until the source of samples ends.

        Args:
            source: an iterator of (x, y), where each is a number or a sequence of numbers; or a function that gets a
                round's number and returns such an iterator, for data that change from round to round.
        """
        try:
            while True:
                try:
                    self._turn(source)
                except (OSError, MQTTException) as error:
                    self._lose(error)
        except StopIteration:
            _say("the samples have ended")
            self._leave()

    def predict(self, x):
        """The model's answer to x, with what this board last learned: a number, or a list where there are several outputs.

        Raises:
            ModelError: no model has come yet, or x does not fit it.
        """
        if self._network is None:
            raise ModelError("no model yet: it comes with the first round")
        self._network.read(x)
        answer = self._network.predict()
        return answer[0] if len(answer) == 1 else answer

    def _turn(self, source):
        if not self._link.is_up:
            self._connect()
        elif self._new_plan:
            self._adopt()
        elif self._update:
            self._send()
        elif not self._is_asked():
            self._link.poll(_IDLE)
        elif self._version != self._round.version:
            self._fetch()
        else:
            self._train(source)

    # Connection.

    def _connect(self):
        longest = min(_RECONNECT << min(self._failures, 16), _RECONNECT_MOST)
        time.sleep_ms(getrandbits(16) * longest >> 16)  # boards that lost one broker must not return as one
        self._link.open()
        for topic in self._handlers:
            self._link.subscribe(topic, 1)
        self._report("ready")
        _say("connected to %s as %s" % (self._broker, self.board))
        self._failures = 0

    def _report(self, state, **more):
        more["state"] = state
        more["client"] = VERSION
        more["firmware"] = ".".join(str(part) for part in sys.implementation[1][:3])
        more["platform"] = sys.platform
        more["heap_free"] = gc.mem_free()
        self._link.publish(self._state, json.dumps(more).encode(), True, 1)

    def _lose(self, error):
        if self._failures == 0:
            _say("no connection to %s (%s); trying again until there is one" % (self._broker, _why(error)))
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

    # What messages change.

    def _on_message(self, topic, payload):
        handler = self._handlers.get(topic, self._on_chunk)
        try:
            handler(payload)
        except MessageError as error:
            _say("%s ignored: %s" % (topic.decode(), error))

    def _on_plan(self, payload):
        plan = messages.unpack_plan(payload)
        if plan != self._plan:
            self._new_plan = plan
            self._is_stale = True

    def _on_round(self, payload):
        before = self._round
        # An empty message means that no round is open.
        now = self._round = messages.unpack_round(payload) if payload else None
        if before is None or now is None or now[:3] != before[:3]:  # else it is announced again, perhaps for longer
            self._is_stale = True
        if now is None or now.round != self._trained:
            self._update = None
            self._resend = _RESEND

    def _on_receipt(self, payload):
        receipt = messages.unpack_receipt(payload)
        if receipt.round == self._trained and self.board in receipt.boards:
            self._update = None
            self._resend = _RESEND

    def _on_delta(self, payload):
        delta = messages.unpack_delta(payload)
        if self._network is None or delta.lineage != self._plan.lineage:
            return
        if self._version == _ANY_VERSION or delta.version != self._version + 1:
            return  # not the next one: the whole model is fetched when a round asks for it
        self._is_stale = True
        self._version = _ANY_VERSION
        self._codec.apply(delta.changes, self._network.base)
        if crc32(self._network.base) != delta.checksum:
            raise MessageError("the model that results has another checksum")
        self._version = delta.version

    def _on_chunk(self, payload):
        if not payload or self._chunks is None:
            return
        chunk = messages.unpack_chunk(payload)
        base = self._network.base
        at = chunk.chunk * _CHUNK
        if chunk.lineage != self._plan.lineage or chunk.chunk >= len(self._chunks):
            return
        if at + len(chunk.weights) > len(base):
            return
        if chunk.version < self._fetching:
            return
        if chunk.version > self._fetching:  # published while this fetch was under way
            self._fetching = chunk.version
            self._chunks[:] = bytes(len(self._chunks))
        base[at : at + len(chunk.weights)] = chunk.weights
        self._chunks[chunk.chunk] = 1
        if all(self._chunks):
            if crc32(base) != chunk.checksum:
                self._fetching = _ANY_VERSION
                raise MessageError("the model has another checksum")
            self._version = self._fetching
            self._chunks = None

    # What a turn does.

    def _adopt(self):
        """Take on a new plan: give up the old network before the new one is made."""
        plan = self._new_plan
        self._new_plan = self._plan = self._network = self._codec = self._writer = self._update = None
        self._version = _ANY_VERSION
        self._trained = None
        try:
            network = Network(plan)
            tensors = network.tensors
            block = sparse.block_size(plan.top, len(network.theta), len(tensors))
            self._writer = messages.UpdateWriter(self.board, block)
            self._codec = sparse.Codec(tensors)
        except (ModelError, MemoryError) as error:
            _say("this board sits out: %s" % error)
            self._report("refused", reason=str(error))
            return
        self._plan = plan
        self._network = network
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
        """Get the whole model; only now are its chunks subscribed to, so that they cost nothing in other rounds."""
        self._version = self._fetching = _ANY_VERSION
        self._chunks = bytearray(-(-len(self._network.base) // _CHUNK))
        self._link.subscribe(self._full, 1)
        start = time.ticks_ms()
        while self._chunks and time.ticks_diff(time.ticks_ms(), start) < _FETCH:
            self._link.poll(_IDLE)
        self._chunks = None
        self._link.unsubscribe(self._full)

    def _train(self, source):
        round_ = self._round
        plan = self._plan
        network = self._network
        samples = source(round_.round) if callable(source) else source
        start = time.ticks_ms()
        self._is_stale = False
        network.begin(fnv1a("%s/%s/%d" % (self.fleet, self.board, round_.round)))
        support_loss = self._learn(samples, plan.support, _SUPPORT)
        query_loss = self._learn(samples, plan.query, _QUERY)
        if self._is_stale:
            return
        took = time.ticks_diff(time.ticks_ms(), start)
        facts = (
            plan.support,
            plan.query,
            support_loss,
            query_loss,
            self._link.bytes_up,
            self._link.bytes_down,
            took,
            gc.mem_free(),
        )
        nonce = int.from_bytes(os.urandom(4), "big")
        begin = self._writer.begin(plan.lineage, round_.round, nonce, facts)
        end = self._codec.encode(network.theta, network.base, plan.top, self._writer.out, begin)
        self._update = self._writer.end(end)
        self._trained = round_.round

    def _learn(self, samples, count, local):
        """Learn from so many samples on one side; the sum of their losses. Stops early when the round is over.

        Nothing here or below allocates; what the source of samples allocates is its own.
        """
        network = self._network
        network.loss[0] = 0
        while count and not self._is_stale:
            x, y = next(samples)
            try:
                network.read(x, y)
            except (ModelError, TypeError) as error:
                self._skip(error)
                continue
            network.step(local)
            count -= 1
            self._listen()
        return network.loss[0]

    def _skip(self, error):
        if self.skipped == 0:
            _say("a sample is skipped, and so will be others like it: %s" % error)
        self.skipped += 1
        self._listen()

    def _listen(self):
        """Between two samples: hear what the broker says. Training goes on without a connection."""
        if self._link.is_up:
            try:
                self._link.poll()
            except (OSError, MQTTException) as error:
                self._lose(error)

    def _send(self):
        """Send the update and wait for its receipt; the next turn sends it again if none comes."""
        self._link.publish(self._up, self._update, False, 1)
        wait = self._resend + (getrandbits(16) * self._resend >> 17)
        start = time.ticks_ms()
        while self._update and time.ticks_diff(time.ticks_ms(), start) < wait:
            self._link.poll(wait)
        self._resend = min(2 * self._resend, _RESEND_MOST)
