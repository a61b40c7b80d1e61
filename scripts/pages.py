"""What all scripts know of the pages: where they are, what they are called, in which order they stand."""
import re
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"


def front(text: str) -> tuple[dict, str]:
    """The settings at the top of a page, and the page."""
    found = re.match(r"---\n(.*?)\n---\n(.*)", text, re.S)
    return (yaml.safe_load(found[1]), found[2]) if found else ({}, text)


def title(path: Path) -> tuple[str, str]:
    """Title of a page or a notebook, and the line below it."""
    if path.suffix == ".qmd":
        told, _ = front(path.read_text(encoding="utf-8"))
        return told["title"], told.get("description", "")
    source = nbformat.read(path, as_version=4).cells[0].source
    return re.match(r"# (.*)", source)[1], re.search(r"^> (.*)", source, re.M)[1]


def target(name: str) -> str:
    """The address of a page or a notebook on the site."""
    return re.sub(r"\.(ipynb|qmd)$", ".html", name)


def settings() -> dict:
    """The site's, from _quarto.yml."""
    return yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))["website"]


def sections() -> list[tuple[str, str | None, list[tuple[str | None, str]]]]:
    """Sections of the sidebar: name, page, and its pages, each with its name there, if it has one of its own."""
    def entry(given):
        return (given["text"], given["href"]) if isinstance(given, dict) else (None, given)
    return [(part["section"], part.get("href"), [entry(given) for given in part["contents"]])
            for part in settings()["sidebar"]["contents"]]


def directives(source: str) -> tuple[dict[str, str], str]:
    """The `#|` lines of a cell, "" where one has no value, and its other lines."""
    lines = source.splitlines()
    found = (re.match(r"#\| *([\w-]+):? *(.*)", line) for line in lines)
    return ({line[1]: line[2].strip("\"'") for line in found if line},
            "\n".join(line for line in lines if not line.startswith("#|")).strip("\n"))
