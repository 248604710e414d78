"""First addresses: the local network, tokens, the roster."""
