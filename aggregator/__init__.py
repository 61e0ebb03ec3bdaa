"""The service: it opens rounds, journals boards' updates, and publishes each new model version."""

__version__ = "0.1.0"
