"""Who does what: memory, engines' lives, names and routes. Pure."""
