"""`python -m k8s.check [FOLDER ...]`: check kustomization folders before they go to a cluster."""

from pathlib import Path
from typing import Annotated, Final

import typer

from k8s.check.check import problems
from k8s.check.references import GUIDE, DocumentedSecrets
from k8s.check.render import render
from loragen.errors import ConfigError

ROOT: Final = Path(__file__).parents[2]
OVERLAYS: Final = ROOT / "k8s" / "overlays"


def main(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Kustomization folders; default: the overlays of this repository."),
    ] = None,
    crd: Annotated[
        Path | None,
        typer.Option(help="KubeRay's ray.io_rayservices.yaml, to hold RayServices to it."),
    ] = None,
    secrets: Annotated[
        Path, typer.Option(help="Text with the commands that create the Secrets.")
    ] = ROOT / GUIDE,
) -> None:
    """Render, and compare with Kubernetes' schemas, our policy and the code.

    One line per problem; exit status 1 where there is one, 2 where a folder cannot be rendered.
    """
    wrong = False
    if crd is None:
        typer.echo("KubeRay's own schema: SKIPPED, no --crd given; the fields in use are checked")
    try:
        documented = DocumentedSecrets.read(secrets.read_text(encoding="utf-8"))
        for folder in folders or sorted(
            path.parent for path in OVERLAYS.glob("*/kustomization.yaml")
        ):
            objects, by = render(folder)
            found = problems(objects, documented, crd)
            for line in found:
                typer.echo(f"{folder.name}: {line}", err=True)
            if not found:
                typer.echo(f"{folder.name}: ok, {len(objects)} objects rendered by {by}")
            wrong = wrong or bool(found)
    except (ConfigError, OSError) as error:
        typer.echo(f"k8s-check: {error}", err=True)
        raise typer.Exit(2) from error
    if wrong:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
