"""Peers: identity, handshake, connections and tunnels over QUIC."""
