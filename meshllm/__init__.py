"""meshllm: a peer-to-peer inference mesh daemon."""

__version__ = "0.1.0"
