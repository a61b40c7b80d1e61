"""How large and how wide the code is: `python scripts/size.py`, or with the root of another checkout to compare with.

A line is one that is neither empty nor a comment alone; nbdev's `__all__` is not counted.
"""
import ast
import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent


def code_lines(text: str) -> list[str]:
    """The lines that somebody wrote, without empty ones and comments."""
    made = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            made |= set(range(node.lineno, node.end_lineno + 1))
    lines = [line for number, line in enumerate(text.splitlines(), 1) if number not in made]
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def functions(text: str) -> list[tuple[str, int, int]]:
    """Name, lines and parameters of each function, `self` and `cls` not counted."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            given = node.args
            names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            count = len([name for name in names if name not in ("self", "cls")])
            found.append((node.name, node.end_lineno - node.lineno + 1, count + bool(given.vararg) + bool(given.kwarg)))
    return found


def exported_cells(folder: Path) -> list[tuple[str, int]]:
    """Notebook and number of lines of each exported cell."""
    found = []
    for path in sorted(folder.glob("[0-9]*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code" and re.match(r"#\| exports?\b", cell.source):
                found.append((path.stem, cell.source.strip().count("\n") + 1))
    return found


def share(lines: list[str], columns: int) -> str:
    """Share of the lines that are wider."""
    return f"{sum(len(line) > columns for line in lines) / max(len(lines), 1):.1%}"


def main(root: Path) -> None:
    every, defined = [], []
    print(f"{'module':<14}{'lines':>7}{'> 100':>8}{'> 120':>8}")
    for path in sorted((root / "distillnb").glob("[a-z]*.py")):
        text = path.read_text(encoding="utf-8")
        lines = code_lines(text)
        every += lines
        defined += [(f"{path.stem}.{name}", *sizes) for name, *sizes in functions(text)]
        print(f"{path.stem:<14}{len(lines):>7,}{share(lines, 100):>8}{share(lines, 120):>8}")
    print(f"{'all':<14}{len(every):>7,}{share(every, 100):>8}{share(every, 120):>8}\n")
    name, length, _ = max(defined, key=lambda entry: entry[1])
    print(f"longest function: {name}, {length} lines")
    name, _, count = max(defined, key=lambda entry: entry[2])
    many = sum(entry[2] > 10 for entry in defined)
    print(f"most parameters: {name}, {count}; above ten: {many} of {len(defined):,} functions")
    cells = exported_cells(root / "nbs")
    notebook, length = max(cells, key=lambda entry: entry[1])
    large = sum(size > 60 for _, size in cells)
    print(f"largest exported cell: {notebook}, {length} lines; above 60: {large} of {len(cells):,} cells")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
