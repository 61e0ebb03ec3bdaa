"""Which layers stay local: the experiment `partition`."""
