"""The search for the settings of a spec that learn best within a budget."""
