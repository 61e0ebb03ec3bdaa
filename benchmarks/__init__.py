"""What training costs, measured: `make bench-board`."""
