"""A fleet of real parts on this machine: broker, aggregator and boards as processes."""
