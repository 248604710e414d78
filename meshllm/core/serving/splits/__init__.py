"""Models that no node holds alone: who shares one, for how long, and what becomes of it. Pure."""
