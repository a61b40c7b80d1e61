"""The list of all public names and llms.txt: `python scripts/reference.py`, or `--check` to compare only."""
import ast
import re
import sys
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"


def first_sentence(text: str) -> str:
    text = " ".join((text or "").split())
    return re.split(r"(?<=[.!?]) (?=[A-Z`])", text)[0]


def members(tree: ast.Module) -> dict[str, list[tuple[str, str]]]:
    """Public methods of each class with their sentences, those grown by `@patch` too."""
    found = {}

    def note(owner, node):
        if not node.name.startswith("_"):
            found.setdefault(owner, []).append((node.name, first_sentence(ast.get_docstring(node))))
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    note(node.name, inner)
        elif isinstance(node, ast.FunctionDef) and any("patch" in ast.unparse(each) for each in node.decorator_list):
            note(ast.unparse(node.args.args[0].annotation), node)
    return found


def constants(text: str) -> dict[str, str]:
    """What the comments beside or above the module's constants say."""
    found, lines = {}, text.splitlines()
    for node in ast.parse(text).body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            beside = lines[node.lineno - 1].partition("  # ")[2]
            above = lines[node.lineno - 2].removeprefix("# ") if lines[node.lineno - 2].startswith("# ") else ""
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            says = beside or ("" if above.startswith("%%") else above) or "A table or a number."
            found |= {name.id: says for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


def rows(module: str) -> list[tuple[str, str]]:
    """Public names of a module, and what each is."""
    text = (ROOT / "distillnb" / f"{module}.py").read_text(encoding="utf-8")
    tree, fixed = ast.parse(text), constants(text)
    names = next(ast.literal_eval(node.value) for node in tree.body
                 if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")
    docs, methods = {node.name: first_sentence(ast.get_docstring(node)) for node in tree.body
                     if isinstance(node, (ast.FunctionDef, ast.ClassDef))}, members(tree)
    listed = []
    for name in names:
        listed.append((name, docs.get(name) or fixed.get(name, "")))
        listed += [(f"{name}.{method}", text) for method, text in dict(methods.get(name, [])).items()]
    return listed


def title(path: Path) -> tuple[str, str]:
    """Title of a page, and the line below it."""
    if path.suffix == ".qmd":
        told = yaml.safe_load(path.read_text(encoding="utf-8").split("---")[1])
        return told["title"], told.get("description", "")
    source = nbformat.read(path, as_version=4).cells[0].source
    return re.match(r"# (.*)", source)[1], re.search(r"^> (.*)", source, re.M)[1]


def api() -> str:
    parts = ['---\ntitle: "All names"\ndescription: "Every public function, class and method, and the chapter that '
             'grows it"\n---\n\n<!-- Made by scripts/reference.py. -->']
    for path in sorted(NBS.glob("[0-9]*.ipynb")):
        module = path.stem[3:]
        lines = [f"## distillnb.{module}", "", f"[{title(path)[0]}]({path.name})", "", "| name | what it is |", "|---|---|"]
        parts.append("\n".join(lines + [f"| `{name}` | {text.replace('|', '&#124;')} |" for name, text in rows(module)]))
    return "\n\n".join(parts) + "\n"


def llms(site: dict) -> str:
    """The pages for machines that read: title, address, one line each."""
    head = ["# distillnb", "", "> " + title(NBS / "index.ipynb")[1], ""]
    base = site["website"]["site-url"].rstrip("/")
    for part in site["website"]["sidebar"]["contents"]:
        head += [f"## {part['section']}", ""]
        names = [part["href"]] if part.get("href") else []
        names += [entry["href"] if isinstance(entry, dict) else entry for entry in part["contents"]]
        for name in names:
            about = ("All names", "Every public name") if name == "api.qmd" else title(NBS / name)
            head.append(f"- [{about[0]}]({base}/{re.sub('[.](ipynb|qmd)$', '.html', name)}): {about[1]}")
        head.append("")
    return "\n".join(head)


def main(check: bool) -> None:
    site = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    for file, text in ((NBS / "api.qmd", api()), (NBS / "llms.txt", llms(site))):
        if not check:
            file.write_text(text, encoding="utf-8")
        elif not file.is_file() or file.read_text(encoding="utf-8") != text:
            sys.exit(f"{file.name} is not what the notebooks give: run python scripts/reference.py")


if __name__ == "__main__":
    main("--check" in sys.argv[1:])
