"""A model of what a board's work takes in seconds and joules. Nothing here is measured on a board.

A board in a round is switched on and connects, sends and receives, computes, and sleeps. Its
current is that of a data sheet in each of these, at one voltage. Not in it: waiting for others,
sensing, sleeping, lost frames, and TLS.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Chip:
    """A board's processor and radio."""

    name: str
    tx: float
    """Ampere while it sends, all included."""
    rx: float
    """... while it receives or listens."""
    cpu: float
    """... while it computes, with the radio asleep."""
    hertz: float
    instructions: float
    """Of one multiply-accumulate of training, with all that belongs to it."""
    sources: tuple[tuple[str, str, str], ...]
    """What, the value in words, and where it is from."""
    volts: float = 3.3
    cycles: float = 1.5
    """Of an instruction."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """Wi-Fi between a board and its access point."""

    bits: float = 65e6
    """A second, on air."""
    frame: int = 38
    """Bytes of 802.11 around an IP packet: header with QoS, LLC, check sum."""
    packet: int = 40
    """Bytes of IP and TCP headers."""
    segment: int = 1460
    """Bytes that a TCP segment carries at most."""
    preamble: float = 36e-6
    """Seconds before a frame's bits."""
    idle: float = 134e-6
    """Seconds around a frame in which a board listens: DIFS, back-off, SIFS, acknowledgement."""
    connect: float = 1.0
    """Seconds from sleep to a connection, once a round; a board listens meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one board does in a round, on average."""

    bytes_up: float
    """Of MQTT."""
    bytes_down: float
    operations: float
    """Multiply-accumulates."""
    messages: int
    """MQTT packets in each direction, acknowledgements among them."""


@dataclass(frozen=True)
class Cost:
    """Seconds and joules of a part of a board's work."""

    seconds: float
    joules: float

    def __add__(self, other: Cost) -> Cost:
        """Both."""
        return Cost(self.seconds + other.seconds, self.joules + other.joules)

    def __mul__(self, times: float) -> Cost:
        """So many of it."""
        return Cost(self.seconds * times, self.joules * times)


CLAIMED: Final = {"time": 0.60, "bytes": 0.70, "energy": 0.50}
"""Shares that the paper says TinyMetaFed saves."""
STEP: Final = {"asm_thumb": 24_818, "viper": 57_883}
"""Instructions of a sample of the sine spec's round on the emulated Cortex-M0.

By `make bench-board`, in docs/engine.md. Other networks' layers are taken to cost as much."""
STEP_OPERATIONS: Final = 2274
"""Multiply-accumulates of the same sample: experiments/methods/cost.py."""

RADIO_ESP32: Final = (
    "ESP32 Series Datasheet, tables of power by mode; checked against a board maker's copy of the "
    "tables, not against the data sheet itself"
)
UNCHECKED: Final = "not checked: the document was not at hand; taken as an assumption"

ESP32: Final = Chip(
    name="ESP32",
    tx=0.180,
    rx=0.0975,
    cpu=0.049,
    hertz=240e6,
    instructions=STEP["viper"] / STEP_OPERATIONS,
    sources=(
        ("sending", "180 mA, 802.11n MCS7 at 14 dBm", RADIO_ESP32),
        ("receiving", "95-100 mA, the middle", RADIO_ESP32),
        ("computing", "30-68 mA at 240 MHz, modem asleep, the middle", RADIO_ESP32),
        (
            "instructions",
            f"{STEP['viper']:,} a sample of sines: viper code on the emulated Cortex-M0",
            "docs/engine.md; that an ESP32 takes as many is an assumption",
        ),
        ("cycles", "1.5 an instruction", "an assumption"),
    ),
)
PICO_W: Final = Chip(
    name="Pico W",
    tx=0.260 + 0.025,
    rx=0.043 + 0.025,
    cpu=0.025,
    hertz=125e6,
    instructions=STEP["asm_thumb"] / STEP_OPERATIONS,
    sources=(
        ("sending", "260 mA at MCS7, and the processor", f"CYW43439 data sheet: {UNCHECKED}"),
        ("receiving", "43 mA at MCS7, and the processor", f"CYW43439 data sheet: {UNCHECKED}"),
        ("computing", "25 mA at 125 MHz", f"RP2040 data sheet, section 5.4: {UNCHECKED}"),
        (
            "instructions",
            f"{STEP['asm_thumb']:,} a sample of sines: assembler on the emulated Cortex-M0",
            "docs/engine.md",
        ),
        (
            "cycles",
            "1.5 an instruction",
            "an assumption: most take one, loads and taken branches two",
        ),
    ),
)
CHIPS: Final = (ESP32, PICO_W)
LINK: Final = Link()
LINK_SOURCES: Final = (
    ("supply", "3.3 V", "where both boards' regulators hold it"),
    ("bit rate", "65 Mbit/s: 802.11n, MCS7, 20 MHz, long guard interval", "IEEE 802.11-2016"),
    (
        "around a frame",
        "36 µs preamble; 28 µs DIFS, 7.5 slots of 9 µs, 10 µs SIFS, 28 µs acknowledgement",
        "IEEE 802.11-2016, short slots; from memory of the standard, not checked",
    ),
    (
        "headers",
        "78 bytes TCP/IP and 802.11 a segment of at most 1,460; an empty one acknowledges each",
        "RFC 791, RFC 9293",
    ),
    (
        "connecting",
        "1 s a round, receiving all the while",
        "ESP8266EX Datasheet, table 3-4: 0.3 to 1 s from deep sleep; an assumption for both boards",
    ),
)


def parts(chip: Chip, link: Link, work: Work) -> dict[str, Cost]:
    """Seconds and joules of a board's round: ``connecting``, ``radio`` and ``computing``."""
    sent = max(work.messages, ceil(work.bytes_up / link.segment))
    received = max(work.messages, ceil(work.bytes_down / link.segment))
    # Every segment is answered by an empty one.
    frames = sent + received
    around = frames * (link.packet + link.frame)
    up = frames * link.preamble + 8 * (work.bytes_up + around) / link.bits
    down = frames * link.preamble + 8 * (work.bytes_down + around) / link.bits
    listened = down + 2 * frames * link.idle
    computed = work.operations * chip.instructions * chip.cycles / chip.hertz
    volts = chip.volts
    return {
        "connecting": Cost(link.connect, link.connect * chip.rx * volts),
        "radio": Cost(up + listened, (up * chip.tx + listened * chip.rx) * volts),
        "computing": Cost(computed, computed * chip.cpu * volts),
    }


def total(chip: Chip, link: Link, work: Work) -> Cost:
    """Seconds and joules of a board's round."""
    return sum(parts(chip, link, work).values(), Cost(0, 0))


def saved(ours: float, theirs: float) -> float:
    """The share of theirs that ours does without; below 0 if ours is more."""
    return 1 - ours / theirs
