"""Whether a board has a part in something; explained in the host's ``protocol/cohort.py``."""


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


def is_invited(board, round_, limit, chosen):
    """Whether a round with this limit and these chosen boards invites this board."""
    drawn = ticket(board, round_)
    if drawn < limit:
        return True
    high = drawn >> 24
    low = drawn >> 16 & 0xFF
    at = len(chosen) >> 1 << 1
    while at:
        at -= 2
        if chosen[at] == low and chosen[at + 1] == high:
            return True
    return False


def is_canary(board, version, share):
    """Whether this board tries out a version before the others; share in units of 2**-32."""
    return ticket(board + "/trial", version) < share  # the text is part of the wire format
