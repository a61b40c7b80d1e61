"""README.md from nbs/index.ipynb, without Quarto: `python scripts/readme.py`, or `--check` to compare only."""
import re
import sys

import nbformat
from pages import NBS, ROOT, directives


def local_links(text: str) -> str:
    """Links are relative to nbs/ in the notebook, and to the root in the README."""
    return re.sub(r"\]\((?!https?://|#)([^)]+)\)", r"](nbs/\1)", text)


def blocks(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            yield local_links(cell.source)
            continue
        flags, code = directives(cell.source)
        if "hide" in flags:
            continue
        if flags.get("echo") != "false":
            yield f"```python\n{code}\n```"
        for output in cell.outputs:
            data = output.get("data", {})
            if "text/markdown" in data:
                yield local_links(data["text/markdown"])
            elif "text/html" in data:
                yield re.sub(r"<style.*?</style>\s*", "", data["text/html"], flags=re.DOTALL).strip()
            elif text := output.get("text", data.get("text/plain")):
                yield f"```\n{text.rstrip()}\n```"


def render() -> str:
    notebook = nbformat.read(NBS / "index.ipynb", as_version=4)
    note = "<!-- Made from nbs/index.ipynb by scripts/readme.py: edit that. -->"
    return "\n\n".join([note, *blocks(notebook)]) + "\n"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    if "--check" not in sys.argv:
        readme.write_text(render(), encoding="utf-8")
    elif readme.read_text(encoding="utf-8") != render():
        sys.exit("README.md is not what nbs/index.ipynb gives: run python scripts/readme.py")
