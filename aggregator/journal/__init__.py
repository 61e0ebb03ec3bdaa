"""What survives a crash: the aggregator's state file."""
