"""Modelled energy and time: the experiment `energy`."""
