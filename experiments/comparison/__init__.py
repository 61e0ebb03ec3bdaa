"""TinyMetaFed beside the baselines: the experiments `sine`, `omniglot` and `keywords`."""
