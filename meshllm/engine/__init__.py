"""Child processes that infer."""
