"""Programs that use the simulation as a researcher does."""
