"""What any long-running part stands on: settings, transport, state file, status, logs."""
