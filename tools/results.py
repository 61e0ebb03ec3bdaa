"""Bring what experiments found into docs/: `make results` after making them.

The folder of each experiment in build/experiments, quick ones left out, becomes docs/results/NAME,
without the single runs; docs/results.md gets the table of each between two comments that name it,
and the claims beside what was found.
"""

import argparse
import json
import re
import shutil
import sys
from pathlib import Path

from experiments.catalogue import EXPERIMENTS
from experiments.claims import claims
from experiments.harness.report import markdown

PROJECT = Path(__file__).resolve().parent.parent
PAGE = PROJECT / "docs" / "results.md"
RESULTS = PROJECT / "docs" / "results"
KEPT = ("README.md", "*.png", "*.svg", "*.csv", "results.json")
BLOCK = re.compile(
    r"(<!-- experiment: (?P<name>[a-z-]+), written by tools/results\.py -->\n).*?(<!-- end -->)",
    re.DOTALL,
)
TITLE = re.compile(r"\A# (.*)\n")


def bring(made: Path, into: Path) -> None:
    """Copy what an experiment left, instead of what is there."""
    if into.exists():
        shutil.rmtree(into)
    into.mkdir(parents=True)
    for pattern in KEPT:
        for file in made.glob(pattern):
            shutil.copy(file, into)


def block(name: str, folder: Path) -> str:
    """An experiment's facts and its first table and picture, as its page has them."""
    page = (folder / "README.md").read_text(encoding="utf-8")
    _, facts, table, *_ = page.split("\n\n")
    first = re.search(r"!\[(.*?)\]\((.*?)\)", page)
    picture = f"\n![{first[1]}](results/{name}/{first[2]})\n" if first else ""
    title = TITLE.match(page)
    return (
        f"{facts}\n\n{table}\n{picture}\n"
        f"[{title[1] if title else name}, in full](results/{name}/README.md)\n"
    )


def claimed() -> str:
    """The table of claims, from all that was ever brought."""
    found = {
        file.parent.name: json.loads(file.read_text(encoding="utf-8"))
        for file in sorted(RESULTS.glob("*/results.json"))
    }
    return markdown(["claim", "found", "verdict"], claims(found)).replace("---:", "---")


def main() -> None:
    """Bring all that is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--made", type=Path, default=PROJECT / "build" / "experiments")
    options = parser.parse_args()
    found = [name for name in EXPERIMENTS if (options.made / name / "README.md").exists()]
    if not found:
        sys.exit(f"{options.made}: no experiment was made; `tinymetafed experiment NAME` makes one")
    for name in found:
        bring(options.made / name, RESULTS / name)
        print(f"docs/results/{name}")
    text = PAGE.read_text(encoding="utf-8")

    def renewed(match: re.Match[str]) -> str:
        name = match["name"]
        if name == "claims":
            return f"{match[1]}{claimed()}\n{match[3]}"
        folder = RESULTS / name
        return f"{match[1]}{block(name, folder)}{match[3]}" if folder.exists() else match[0]

    PAGE.write_text(BLOCK.sub(renewed, text), encoding="utf-8")


if __name__ == "__main__":
    main()
