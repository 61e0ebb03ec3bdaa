"""`tinymetafed model`: look into the model store, and bring versions out of it and back."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from aggregator.history import RoundFacts
from aggregator.store import cheader
from aggregator.store.store import Lineage, Store, StoredVersion
from cli.ask import ask, fleet_of, new_id, settings_of
from cli.options import CHANGING_SECONDS, Broker, Fleet, NoWait, SpecFile, State, Username, Wait
from protocol.commands import Import, RollBack
from protocol.fixed import WEIGHT_BITS
from protocol.messages import Plan
from protocol.spec.spec import Spec
from runtime.errors import ModelFileError
from runtime.modelfile import SCALE, ModelFile
from runtime.remote import Remote

model = typer.Typer(
    help="Every version of the model: look at them, export, import, roll back.\n\n"
    "list, show, diff and export read the aggregator's --state folder, also while it runs. import "
    "and rollback are commands to the aggregator, through the broker: see `tinymetafed fleet`.",
    no_args_is_help=True,
    add_completion=False,
)

SHOWN: Final = 20
"""Versions of a list that is not told how many."""
_NONE: Final = "-"


def _lineage_number(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        raise typer.BadParameter(
            "give the eight hexadecimal digits that `model list` shows"
        ) from None


LineageNumber = Annotated[
    int | None,
    typer.Option(
        "--lineage",
        parser=_lineage_number,
        metavar="HEX",
        help="An earlier lineage, by its number; by default the one in force.",
    ),
]
Version = Annotated[str, typer.Argument(help="Its number, or latest: what boards work on.")]


@contextmanager
def _opened(state: Path | None, number: int | None) -> Iterator[tuple[Store, Lineage]]:
    with Store.open(settings_of(state=state).state) as store:
        yield store, store.lineage(number)


# --- Looking -------------------------------------------------------------------------------------


@model.command("list")
def list_(
    state: State = None,
    number: LineageNumber = None,
    last: Annotated[
        int | None,
        typer.Option(min=1, help=f"How many, the newest; by default {SHOWN}, with --json all."),
    ] = None,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="For scripts: all that is known.")
    ] = False,
) -> None:
    """The versions of a lineage, and what other lineages there are."""
    with _opened(state, number) as (store, lineage):
        versions = store.versions(lineage)
        others = [other for other in store.lineages if other != lineage]
    most = last or (len(versions) if as_json else SHOWN)
    shown = versions[-most:]
    if as_json:
        rows = [{"lineage": f"{lineage.number:08x}", **asdict(version)} for version in shown]
        print(json.dumps(rows, indent=2))
        return
    table = Table(title=f"fleet {lineage.fleet}, lineage {lineage.number:08x}")
    for heading in ("version", "made (UTC)", "by", "round's loss", "boards", "role"):
        table.add_column(heading, justify="right" if heading == "version" else "left")
    for version in shown:
        table.add_row(*_cells(version))
    if len(shown) < len(versions):
        table.caption = f"{len(versions) - len(shown)} older ones: --last {len(versions)}"
    console = Console()
    console.print(table)
    for other in others:
        console.print(f"lineage {other.number:08x}: {other.versions} versions", highlight=False)


def _cells(version: StoredVersion) -> tuple[str, ...]:
    facts = version.facts
    return (
        f"{version.version}",
        version.made.removesuffix("+00:00").replace("T", " "),
        version.origin,
        _NONE if facts is None else f"{facts.loss:.4g}",
        _NONE if facts is None else f"{facts.accepted} of {facts.invited}",
        version.role if version.kept else f"{version.role}, not kept",
    )


@model.command()
def show(version: Version, state: State = None, number: LineageNumber = None) -> None:
    """What made a version: its round, boards and settings; and the range of its weights."""
    with _opened(state, number) as (store, lineage):
        found = store.version(lineage, version)
        spec = store.spec(lineage, found.version)
        file = store.model_file(lineage, found) if found.kept else None
    console = Console(highlight=False)
    about = _pairs(f"fleet {lineage.fleet}, lineage {lineage.number:08x}, version {found.version}")
    for name, value in (
        ("made", found.made),
        ("by", found.origin),
        ("role", found.role),
        *(_facts(found.facts) if found.facts else ()),
        ("boards", _NONE if found.cohort is None else ", ".join(found.cohort)),
    ):
        about.add_row(name, value)
    console.print(about)
    settings = _pairs("settings in force")
    for name, value in _settings(spec).items():
        settings.add_row(name, json.dumps(value))
    console.print(settings)
    if file is None:
        console.print("its weights are not kept")
        return
    weights = Table(title=f"global layers, in units of 2**-{WEIGHT_BITS} = {SCALE:.6g}")
    for heading in ("layer", "outputs", "weights of each", "least", "largest", "root mean square"):
        weights.add_column(heading, justify="right")
    for place, shape, array in file.layers():
        if not shape.local:
            real = array * np.float64(SCALE)
            weights.add_row(
                f"{place}",
                f"{shape.outputs}",
                f"{shape.row_size}",
                f"{real.min():.4g}",
                f"{real.max():.4g}",
                f"{_rms(real):.4g}",
            )
    console.print(weights)


def _facts(facts: RoundFacts) -> Iterator[tuple[str, str]]:
    """A round's facts, but for what this round did not have."""
    for name, value in asdict(facts).items():
        if isinstance(value, dict):
            yield name, ", ".join(f"{n} {reason}" for reason, n in value.items()) or _NONE
        elif value is not None:
            yield name, f"{value:.4g}" if isinstance(value, float) else f"{value}"


@model.command()
def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="A version.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    state: State = None,
    number: LineageNumber = None,
) -> None:
    """How far version B is from version A, layer by layer, and by which other settings."""
    with _opened(state, number) as (store, lineage):
        found = [store.version(lineage, name) for name in (first, second)]
        before, after = (store.model_file(lineage, version) for version in found)
    console = Console(highlight=False)
    table = Table(title=f"version {before.version} to version {after.version}")
    for heading in ("layer", "weights", "changed", "largest change", "root mean square"):
        table.add_column(heading, justify="right")
    for (place, shape, old), (_, _, new) in zip(before.layers(), after.layers(), strict=True):
        if not shape.local:
            change = (new.astype(np.float64) - old) * SCALE
            changed = np.count_nonzero(change)
            table.add_row(
                f"{place}",
                f"{change.size}",
                f"{changed} ({100 * changed / change.size:.1f} %)",
                f"{np.abs(change).max():.4g}",
                f"{_rms(change):.4g}",
            )
    console.print(table)
    old_settings, new_settings = _settings(before.spec), _settings(after.spec)
    differing = [name for name in new_settings if old_settings.get(name) != new_settings[name]]
    if not differing:
        console.print("the same settings")
        return
    settings = Table("", f"{before.version}", f"{after.version}", title="settings that differ")
    for name in differing:
        settings.add_row(name, json.dumps(old_settings.get(name)), json.dumps(new_settings[name]))
    console.print(settings)


def _pairs(title: str) -> Table:
    table = Table(title=title, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _settings(spec: Spec) -> dict[str, Any]:
    """What may change from version to version, by dotted name."""
    return {
        f"{part}.{name}": value
        for part in ("training", "rounds")
        for name, value in spec.model_dump(mode="json")[part].items()
    }


def _rms(values: NDArray[np.floating]) -> float:
    return float(np.sqrt(np.mean(values**2)))


# --- Out and in ----------------------------------------------------------------------------------


@model.command()
def export(
    version: Version,
    to: Annotated[Path, typer.Option(metavar="FILE", help="A file that ends in .npz or .h.")],
    state: State = None,
    number: LineageNumber = None,
) -> None:
    """Write a version as numpy arrays (.npz) or as a C header (.h)."""
    if to.suffix not in {".npz", ".h"}:
        raise ModelFileError(f"{to}: ends neither in .npz nor in .h, so its format is not known")
    with _opened(state, number) as (store, lineage):
        file = store.model_file(lineage, store.version(lineage, version))
    if to.suffix == ".h":
        cheader.write(file, to)
    else:
        file.write(to)
    print(f"export: version {file.version} of lineage {file.lineage:08x} is in {to}")


@model.command("import")
def import_(  # noqa: PLR0913 - one argument a flag
    path: Annotated[Path, typer.Argument(metavar="FILE.npz", help="What `export` has written.")],
    broker: Broker = None,
    fleet: Fleet = None,
    username: Username = None,
    wait: Wait = CHANGING_SECONDS,
    *,
    no_wait: NoWait = False,
    other_lineage: Annotated[
        bool, typer.Option("--other-lineage", help="Take a file of another lineage, too.")
    ] = False,
) -> None:
    """Go on from a file's weights, once no round is open. They become the next version."""
    file = ModelFile.read(path)
    settings = settings_of(broker, username, fleet or file.spec.fleet)
    with Remote(settings, fleet_of(settings)) as remote:
        plan = Plan.unpack(remote.plan())
        file.check_fits(plan)
        if plan.lineage != file.lineage and not other_lineage:
            raise ModelFileError(
                f"{path}: is of lineage {file.lineage:08x}, and fleet {remote.fleet!r} is in "
                f"{plan.lineage:08x}; its network is the same: --other-lineage takes it anyway"
            )
        command = Import.of(file.weights, new_id())
        ask(remote, command, seconds=wait, wait=not no_wait)


@model.command()
def rollback(  # noqa: PLR0913, PLR0917
    version: Annotated[int, typer.Argument(min=0, help="Its number.")],
    broker: Broker = None,
    fleet: Fleet = None,
    spec: SpecFile = None,
    username: Username = None,
    wait: Wait = CHANGING_SECONDS,
    *,
    no_wait: NoWait = False,
) -> None:
    """Go on from an earlier version's weights, once no round is open.

    They become the next version: versions only grow.
    """
    settings = settings_of(broker, username, fleet, spec)
    with Remote(settings, fleet_of(settings)) as remote:
        command = RollBack(id=new_id(), version=version)
        ask(remote, command, seconds=wait, wait=not no_wait)
