"""A round's life and what comes of it, without I/O: the aggregator and the simulation run this."""
