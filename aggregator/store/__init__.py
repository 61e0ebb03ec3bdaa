"""The model store: every version of a fleet's model, with what made it."""
