"""`python -m loragen.method`: what `loragen bootstrap-pool` runs, since config loads no torch."""

from pathlib import Path
from typing import Annotated

import typer

from loragen.errors import StartupError


def main(
    model: Annotated[Path, typer.Argument(help="Folder of the edge model.")],
    out: Annotated[Path, typer.Argument(help="File to write.")],
    columns: Annotated[int, typer.Option(help="Experts per linear.")],
    template_hash: Annotated[str, typer.Option(help="Hash of the compiled template.")],
) -> None:
    """Write the bootstrap pool of an edge model."""
    from loragen.method.bootstrap import bootstrap_pool  # seconds of torch, after the arguments

    try:
        pool = bootstrap_pool(
            model, out, columns=columns, template_hash=template_hash, progress=typer.echo
        )
    except StartupError as error:
        typer.echo(f"loragen: {error.message}", err=True)
        raise typer.Exit(error.exit_code) from error
    size = out.stat().st_size / 2**20
    typer.echo(f"wrote {out}: {pool.spec.layers} layers, {columns} experts each, {size:.1f} MiB")


if __name__ == "__main__":
    typer.run(main)
