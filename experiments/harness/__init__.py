"""What experiments stand on: runs that are kept, reports, pictures."""
