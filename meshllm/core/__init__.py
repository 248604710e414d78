"""The pure core: what the node knows and decides, without sockets, clocks, files or randomness."""
