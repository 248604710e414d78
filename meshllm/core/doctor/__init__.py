"""What `mesh-llm doctor` makes of what was gathered: findings with a result and what to do about each."""
