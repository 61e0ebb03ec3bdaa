"""The module `machine` where there are no pins: a sensor that swings, and a pin that prints."""

from typing import Final

MACHINE: Final = """\
class ADC:
    def __init__(self, pin):
        self.reading = 0

    def read_u16(self):
        self.reading = (self.reading + 4321) % 65536
        return self.reading


class Pin:
    OUT = 1

    def __init__(self, pin, mode):
        self.level = 0

    def value(self, level=None):
        if level is None:
            return self.level
        if level != self.level:
            print("pin", level)
        self.level = int(level)
"""
