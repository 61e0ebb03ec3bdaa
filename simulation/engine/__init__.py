"""Boards' arithmetic on the host, many boards at once: in their fixed point, or in float64."""
