"""Hashes that a board and the host agree on; see the host's ``protocol/cohort.py``."""


def fnv1a(text):
    """32-bit FNV-1a hash of a text's UTF-8 bytes."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def ticket(board, round_):
    """The board's ticket in the draw for a round's cohort, 0 to 2**32 - 1."""
    value = fnv1a("%s/%d" % (board, round_))
    for _ in range(2):
        value = (value ^ value >> 16) * 1664525 & 0xFFFFFFFF
    return value ^ value >> 16
