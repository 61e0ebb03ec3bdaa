"""What is compared: TinyMetaFed, its parts, and the baselines, each with its settings."""
