"""What models may be used for, and what is left of that. Pure."""
