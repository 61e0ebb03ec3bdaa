"""Learning with the fleet as one task of asyncio, beside one that blinks.

Beside this file lies config.json; the fleet's spec has inputs = 8.
"""

import asyncio

from machine import ADC, Pin
from tinymetafed import Client, aio


class Readings:
    """The last eight readings of a sensor and the one after them, a reading every 10 ms."""

    def __init__(self):
        self.sensor = ADC(26)
        self.window = [0.0] * 8
        self.reading = 0.0

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.sleep_ms(10)
        self.window = self.window[1:] + [self.reading]
        self.reading = self.sensor.read_u16() / 32768 - 1
        return self.window, self.reading


async def blink():
    led = Pin(25, Pin.OUT)
    while True:
        led.value(not led.value())
        await asyncio.sleep_ms(500)


async def main():
    blinking = asyncio.create_task(blink())
    await aio.run(Client("config.json"), Readings())
    blinking.cancel()


asyncio.run(main())
