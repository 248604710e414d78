"""Bytes and typed values: what peers say, as frames."""
