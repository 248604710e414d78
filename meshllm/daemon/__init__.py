"""Where the pure core meets the shells."""
