"""A firmware's own loop, in which learning with the fleet is one duty among others.

A turn every 10 ms reads a sensor, does one step of the client, and sets off an alarm where the
model foretold another reading. Beside this file lies config.json; the fleet's spec has inputs = 8.
"""

import time

from machine import ADC, Pin
from tinymetafed import Client, ModelError

TURN = 10  # milliseconds
ODD = 0.5  # a reading so far from what was foretold

sensor = ADC(26)
alarm = Pin(15, Pin.OUT)
window = [0.0] * 8
reading = 0.0


def samples():
    """The last eight readings and the one after them, as they are at this turn."""
    while True:
        yield window, reading


def is_odd():
    try:
        return abs(client.predict(window) - reading) > ODD
    except ModelError:  # before the first round
        return False


client = Client("config.json")
client.begin(samples())
turn = time.ticks_ms()
while True:
    window = window[1:] + [reading]
    reading = sensor.read_u16() / 32768 - 1
    client.step()
    alarm.value(is_odd())
    turn = time.ticks_add(turn, TURN)
    time.sleep_ms(max(0, time.ticks_diff(turn, time.ticks_ms())))
