"""Runs on MicroPython: whether boards are invited and canaries; prints [invited, canary] a line.

Usage: micropython cohort.py FILE, of a list of [board, round, limit, chosen in hex, share, _].
"""

import json
import sys
from binascii import unhexlify

from tinymetafed.cohort import is_canary, is_invited

with open(sys.argv[1]) as file:
    cases = json.load(file)
for board, number, limit, chosen, share, _ in cases:
    invited = is_invited(board, number, limit, unhexlify(chosen))
    print(json.dumps([invited, is_canary(board, number, share)]))
