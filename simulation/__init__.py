"""A fleet in one process, bit for bit as boards compute."""
