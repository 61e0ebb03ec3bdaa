"""What every part of a fleet must agree on: topics, messages, codec, arithmetic, spec."""
