"""The management API, on aiohttp."""
