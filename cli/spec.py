"""`tinymetafed spec`: a spec to start from."""

from typing import Annotated

import typer

from runtime.shipped import shipped


def spec(
    name: Annotated[str, typer.Argument(help="sine, omniglot or keywords.")],
) -> None:
    """Print one of the specs that come with the project.

    It is a start for one of your own: tinymetafed spec sine > spec.toml
    """
    known = {path.stem: path for path in sorted(shipped("specs").glob("*.toml"))}
    if name not in known:
        raise typer.BadParameter(f"there is no spec {name!r}; there are {', '.join(known)}")
    typer.echo(known[name].read_text(encoding="utf-8"), nl=False)
