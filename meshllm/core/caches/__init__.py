"""How a node's prompt caches are shared out among its models. Pure."""
