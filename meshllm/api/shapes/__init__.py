"""What bodies and answers of the management API look like, as types."""
