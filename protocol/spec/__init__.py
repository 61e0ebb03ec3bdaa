"""The spec: a fleet's model, partition and training plan, as a TOML file that a person writes."""
