"""From a bare board to a member of a fleet: so far, the files that a board needs."""
