"""Each sample used once, beside stored batches: the experiment `online`."""
