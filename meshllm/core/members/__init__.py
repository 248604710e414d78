"""Who is here: membership, gossip and admission."""
