"""Commands; typer and rich live here only."""
