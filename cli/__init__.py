"""The `tinymetafed` command."""
