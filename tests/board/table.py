"""Runs on MicroPython: the table of states as it runs; prints [states, moves, steps] as JSON."""

import json

from tinymetafed.session import _MOVES, STATES, Session

print(json.dumps([STATES, [[m >> 8, m >> 4 & 15, m & 15] for m in _MOVES], len(Session._STEPS)]))
