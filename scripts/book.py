"""The form of the book, measured: `python scripts/book.py`, or with the root of another checkout to compare with.

`python scripts/book.py stamp` writes the Colab badge and the cell that installs the package into every notebook, with
the repository's address from settings.ini.
"""
import configparser
import re
import sys
from pathlib import Path

import nbformat
from pages import ROOT

WIDTH = 82  # columns of a page


def notebooks(root: Path) -> list[Path]:
    """All pages, chapters first."""
    found = [*sorted((root / "nbs").glob("*.ipynb")), *sorted((root / "nbs" / "tutorials").glob("*.ipynb"))]
    return sorted(found, key=lambda path: not path.name[:2].isdigit())


def measure(path: Path) -> dict:
    """Figures of one notebook."""
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    lines = [line for cell in code for line in cell.source.splitlines()]
    first = next((place for place, cell in enumerate(cells, 1) if cell.cell_type == "code" and cell.outputs), None)
    drawn = sum("image/svg+xml" in output.get("data", {}) and "Drawing(" in cell.source
                for cell in code for output in cell.outputs)
    drawn += sum(len(re.findall(r"!\[[^\]]*\]\((?!http)[^)]*\.svg\)", cell.source)) for cell in cells
                 if cell.cell_type == "markdown")
    return {"notebook": path.stem, "cells": len(cells), "lines": len(lines), "first": first, "drawn": drawn,
            "largest": max((len(cell.source.splitlines()) for cell in code), default=0),
            "wide": sum(len(line) > WIDTH and not line.startswith("#|") for line in lines)}


def address(root: Path) -> str:
    """The repository's, from settings.ini."""
    settings = configparser.ConfigParser(interpolation=None, delimiters=["="])
    settings.read(root / "settings.ini")
    return settings["DEFAULT"]["git_url"].strip()


def badge(root: Path, path: Path) -> str:
    """The picture that opens a notebook in Colab, at a width of its own."""
    place = path.relative_to(root).as_posix()
    if path.name == "index.ipynb":
        place = "nbs/tutorials/walkthrough.ipynb"  # the home page itself has nothing to run
    link = f"https://colab.research.google.com/github/{address(root).removeprefix('https://github.com/')}"
    return (f'<a href="{link}/blob/main/{place}"><img src="https://colab.research.google.com/assets/colab-badge.svg" '
            'alt="Open in Colab" width="117" height="20"></a>')


def install(root: Path, extras: str) -> str:
    """The cell that installs the package in Colab: from the index, or from the repository where it is not there."""
    return f"""#| hide
# In Colab, install the package first
import sys
if "google.colab" in sys.modules:
    package, source = "distillnb[{extras}]", "git+{address(root)}"
    !pip install -q "{{package}}" || pip install -q "{{package}} @ {{source}}\""""


def extras_of(source: str) -> str:
    """What a notebook's install cell asks for."""
    return re.search(r"distillnb\[([\w,]+)\]", source)[1]


def stamped(root: Path, path: Path):
    """A notebook with badge and install cell as they must be."""
    book = nbformat.read(path, as_version=4)
    for cell in book.cells[:3]:
        if cell.cell_type == "markdown" and re.match(r"(\[!\[|<a href)[^\n]*colab-badge[^\n]*$", cell.source):
            cell.source = badge(root, path)
        if "google.colab" in cell.source and cell.cell_type == "code":
            cell.source = install(root, extras_of(cell.source))
    return book


def main(root: Path) -> None:
    rows = [measure(path) for path in notebooks(root)]
    print(f"{'notebook':<18}{'cells':>7}{'lines':>8}{'largest':>9}{'> ' + str(WIDTH):>7}{'first':>7}{'drawn':>7}")
    for row in rows:
        print(f"{row['notebook']:<18}{row['cells']:>7}{row['lines']:>8,}{row['largest']:>9}{row['wide']:>7}"
              f"{row['first'] or '':>7}{row['drawn']:>7}")
    lines, wide = sum(row["lines"] for row in rows), sum(row["wide"] for row in rows)
    print(f"{len(rows)} notebooks, {lines:,} lines of code, {wide / lines:.1%} wider than {WIDTH}; largest cell "
          f"{max(row['largest'] for row in rows)}; {sum(row['drawn'] for row in rows)} drawn pictures")


if __name__ == "__main__":
    if sys.argv[1:] == ["stamp"]:
        for page in notebooks(ROOT):
            nbformat.write(stamped(ROOT, page), page)
    else:
        main(Path(sys.argv[1]) if sys.argv[1:] else ROOT)
