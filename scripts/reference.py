"""The list of all public names and llms.txt: `python scripts/reference.py`, or `--check` to compare only."""
import ast
import re
import sys

from pages import NBS, ROOT, sections, settings, target, title


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


def constants(tree: ast.Module, lines: list[str]) -> dict[str, str]:
    """What the comments beside or above the module's constants say."""
    found = {}
    for node in tree.body:
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
    tree = ast.parse(text)
    fixed = constants(tree, text.splitlines())
    names = next(ast.literal_eval(node.value) for node in tree.body
                 if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")
    docs, methods = {node.name: first_sentence(ast.get_docstring(node)) for node in tree.body
                     if isinstance(node, (ast.FunctionDef, ast.ClassDef))}, members(tree)
    listed = []
    for name in names:
        listed.append((name, docs.get(name) or fixed.get(name, "")))
        listed += [(f"{name}.{method}", text) for method, text in dict(methods.get(name, [])).items()]
    return listed


def api() -> str:
    parts = ['---\ntitle: "All names"\ndescription: "Every public function, class and method, and the chapter that '
             'grows it"\n---\n\n<!-- Made by scripts/reference.py. -->']
    for path in sorted(NBS.glob("[0-9]*.ipynb")):
        module = path.stem[3:]
        head = [f"## distillnb.{module}", "", f"[{title(path)[0]}]({path.name})", ""]
        table = [f"| `{name}` | {text.replace('|', '&#124;')} |" for name, text in rows(module)]
        parts.append("\n".join([*head, "| name | what it is |", "|---|---|", *table]))
    return "\n\n".join(parts) + "\n"


def llms() -> str:
    """The pages for machines that read: title, address, one line each."""
    lines, base = ["# distillnb", "", "> " + title(NBS / "index.ipynb")[1], ""], settings()["site-url"].rstrip("/")
    for section, href, pages in sections():
        lines += [f"## {section}", ""]
        for name in [href] * bool(href) + [name for _, name in pages]:
            called, about = title(NBS / name)
            lines.append(f"- [{called}]({base}/{target(name)}): {about}")
        lines.append("")
    return "\n".join(lines)


def main(check: bool) -> None:
    for name, make in (("api.qmd", api), ("llms.txt", llms)):  # the second reads the title of the first
        file, text = NBS / name, make()
        if not check:
            file.write_text(text, encoding="utf-8")
        elif not file.is_file() or file.read_text(encoding="utf-8") != text:
            sys.exit(f"{name} is not what the notebooks give: run python scripts/reference.py")


if __name__ == "__main__":
    main("--check" in sys.argv[1:])
