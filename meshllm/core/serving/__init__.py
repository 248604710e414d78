"""Who serves what: memory, engines' lives, orders and names. Pure."""
