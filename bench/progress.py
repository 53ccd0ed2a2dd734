"""Progress of a benchmark, on stderr."""

import typer


def say(line: str) -> None:
    """Show progress."""
    typer.echo(f"bench: {line}", err=True)
