"""The notebooks are the source: in sync, clean, well formed, and readable as pages."""
import ast
import configparser
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import is_dataclass
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
from book import WIDTH, badge, measure, stamped  # noqa: E402
from pages import sections  # noqa: E402
from preview import build  # noqa: E402

NOTEBOOKS = sorted((ROOT / "nbs").rglob("[!.]*.ipynb"))
NOTEBOOKS = [path for path in NOTEBOOKS if ".ipynb_checkpoints" not in path.parts and "runs" not in path.parts]
CHAPTERS = [path for path in NOTEBOOKS if path.name[:2].isdigit()]
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def outputs(path):
    return [output for cell in cells(path, "code") for output in cell.outputs]


def text_of(output):
    data = output.get("data", {})
    return output.get("text", "") + "".join(str(value) for mime, value in data.items() if mime.startswith("text/"))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The working tree in a repository of its own, where nbdev may write."""
    folder = tmp_path_factory.mktemp("copy") / "distillnb"
    left_out = (".git", ".venv", "runs", "_docs", "_proc", "*.egg-info", "__pycache__", ".hypothesis")
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*left_out))
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def in_copy(copy, code):
    environment = os.environ | {"PYTHONPATH": str(copy)}
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, env=environment, stdout=subprocess.DEVNULL)


def test_package_is_what_the_notebooks_export(copy):
    for path in (copy / "distillnb").glob("[a-z]*.py"):
        path.unlink()  # so that a module whose notebook is gone is noticed
    in_copy(copy, "from nbdev.export import nb_export; import nbdev; nbdev.nbdev_export()")
    for path in sorted((ROOT / "distillnb").glob("*.py")):
        assert path.read_text() == (copy / "distillnb" / path.name).read_text(), f"{path.name} differs: run make export"


def test_notebooks_are_clean(copy):
    in_copy(copy, "from nbdev.clean import nbdev_clean; nbdev_clean()")
    for path in NOTEBOOKS:
        assert path.read_text() == (copy / path.relative_to(ROOT)).read_text(), f"{path.name} holds metadata: run make export"


def test_pages_are_processed(copy):
    """What Quarto gets: every notebook, with the documentation of its functions, and no error in place of it."""
    in_copy(copy, "from nbdev.serve import proc_nbs; proc_nbs(n_workers=0, force=True)")
    pages = {path.name: json.loads(path.read_text()) for path in (copy / "_proc").rglob("*.ipynb")}
    assert pages.keys() >= {path.name for path in NOTEBOOKS}
    for name, page in pages.items():
        for cell in page["cells"]:
            for output in cell.get("outputs", []):
                text = json.dumps(output)
                signs = ('"output_type": "error"', "Traceback (most recent call last)", r"\u001b[")
                assert not any(sign in text for sign in signs), f"{name}: {''.join(cell['source'])}\n{text[:500]}"


def is_plain(value):
    """Whether a default can be printed on a page and compared with what somebody passes."""
    if isinstance(value, tuple):
        return all(map(is_plain, value))
    if is_dataclass(value) and not isinstance(value, type):
        return value.__dataclass_params__.frozen
    if repr(value) == "<factory>":  # of a dataclass's field, made anew each time
        return True
    return value is None or isinstance(value, (str, int, float)) or callable(value)


@pytest.mark.parametrize("module", [path.stem[3:] for path in CHAPTERS])
def test_defaults_are_plain_values(module):
    module = import_module(f"distillnb.{module}")
    for name in getattr(module, "__all__", []):
        thing = getattr(module, name)
        inside = vars(thing).items() if isinstance(thing, type) else ()
        for function in (thing, *(value for key, value in inside if not key.startswith("_"))):
            if not callable(function):
                continue
            try:
                parameters = inspect.signature(function).parameters.values()
            except ValueError:  # made by a compiled library
                continue
            for parameter in parameters:
                plain = parameter.default is parameter.empty or is_plain(parameter.default)
                assert plain, f"{name}({parameter}): take None as the default, and make the value in the function"


@each
def test_form(path):
    book = nbformat.read(path, as_version=4)
    source = [cell.source for cell in book.cells]
    assert re.match(r"# \S.*\n\n> \S[^\n]*$", source[0]), "a title and one line"
    assert [cell.source for cell in stamped(ROOT, path).cells] == source, "run python scripts/book.py stamp"
    exports = [text for text in source if re.match(r"#\| exports?\b", text)]
    if path not in CHAPTERS:
        assert not exports
        return
    assert source[1] == badge(ROOT, path) and "google.colab" in source[2]
    assert f"#| default_exp {path.stem[3:]}" in source
    assert exports and source[-1].endswith("nbdev.nbdev_export()")
    last = "\n".join(cell.source for cell in book.cells[-4:] if cell.cell_type == "markdown")
    assert "## What you have now" in last and last.count("<details>") == last.count("</details>") == 3


@each
def test_pages_fit(path):
    sizes = measure(path)
    assert sizes["largest"] <= 40, "cut the largest cell in two, with @patch where it is a class"
    assert sizes["wide"] <= .03 * sizes["lines"], f"{sizes['wide']} lines are wider than {WIDTH}"
    if path in CHAPTERS:
        assert sizes["first"] <= 6, "show before you build: a result in one of the first six cells"


@each
def test_pictures_have_words(path):
    for cell in cells(path, "code"):
        if any("image/svg+xml" in output.get("data", {}) for output in cell.outputs):
            assert re.search(r"^#\| fig-alt: *\S.{20}", cell.source, re.M), f"describe it with #| fig-alt:\n{cell.source}"
    for cell in cells(path, "markdown"):
        assert "![](" not in cell.source


@each
def test_stored_outputs(path):
    stored = outputs(path)
    assert stored, "no output is stored: run it"
    assert not [output for output in stored if output.output_type == "error" or output.get("name") == "stderr"]
    for output in stored:
        found = re.search(r"it/s|\d%\||/work/|/tmp/|/root/|/home/|[A-Z]:\\\\", text_of(output))
        assert not found, f"{found} in {text_of(output)[:200]}"


@each
def test_charts_are_pictures(path):
    for output in outputs(path):
        data = output.get("data", {})
        assert not any("vega" in mime for mime in data)
        if "alt." in data.get("text/plain", ""):
            assert "image/svg+xml" in data


@each
def test_slow_cells_import_nothing(path):
    for cell in cells(path, "code"):  # building the pages runs each cell that imports something
        slow = re.search(r"^#\| (slow|gpu)$", cell.source, re.M)
        assert not (slow and re.search(r"^\s*(import|from) ", cell.source, re.M)), cell.source


@each
def test_links_lead_somewhere(path):
    for cell in cells(path, "markdown"):
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", cell.source):
            assert (path.parent / target).exists(), target


def modules_imported(tree, known):
    """Our own modules that a file imports, on its top level or in a function."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("distillnb.")}
        elif isinstance(node, ast.ImportFrom):
            inside = (node.module or "").removeprefix("distillnb").removeprefix(".").split(".")[0]
            if node.level or (node.module or "").split(".")[0] == "distillnb":
                found |= {inside} if inside else {alias.name for alias in node.names} & {*known}
    return found


@pytest.mark.parametrize("code, expected", [
    ("from .data import split", {"data"}), ("def f():\n    from distillnb.data import split", {"data"}),
    ("import distillnb.data", {"data"}), ("import distillnb.data as d, os", {"data"}),
    ("from distillnb import data", {"data"}), ("from . import data, __version__", {"data"}),
    ("from os import path", set()), ("from data import x", set())])
def test_imports_are_seen(code, expected):
    assert modules_imported(ast.parse(code), ["data"]) == expected


def test_modules_import_only_what_comes_before():
    order = [path.stem[3:] for path in CHAPTERS]
    assert len({path.name[:2] for path in CHAPTERS}) == len(CHAPTERS), "two chapters with one number"
    for i, module in enumerate(order):
        later = modules_imported(ast.parse((ROOT / "distillnb" / f"{module}.py").read_text()), order) - {*order[:i]}
        assert not later, f"{module} imports {later}, which come later"


METHODS = "append|update|write_text|write_bytes|mkdir|unlink|pop"
RETURNS_NOTHING = re.compile(rf"(test_\w+|picture_style|pd\.testing\.\w+|print|display|\w+\.({METHODS}))\(")
SHOWS_NOTHING = re.compile(r"^#\| *(hide|slow|gpu|exports?|default_exp|eval: *false|output: *false)\b", re.M)


def shows_a_value(source):
    """Whether a cell ends with an expression whose value is to be seen."""
    code = "\n".join(line for line in source.splitlines() if not line.startswith(("%", "!")))
    try:
        body = ast.parse(code).body
    except SyntaxError:
        return False
    if not body or not isinstance(body[-1], ast.Expr) or source.rstrip().endswith(";"):
        return False
    return not isinstance(body[-1].value, ast.Constant) and not RETURNS_NOTHING.match(ast.unparse(body[-1]))


@each
def test_values_that_are_shown_are_stored(path):
    for cell in cells(path, "code"):
        if not SHOWS_NOTHING.search(cell.source) and shows_a_value(cell.source):
            assert cell.outputs, f"A value is shown, but not stored; run it, or end it with a semicolon:\n{cell.source}"


def test_readme_is_the_index():
    subprocess.run([sys.executable, "scripts/readme.py", "--check"], cwd=ROOT, check=True)
    for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target


def test_sidebar_lists_every_page_once():
    listed = [name for _, href, pages in sections() for name in (href, *(name for _, name in pages)) if name]
    pages = [path.relative_to(ROOT / "nbs").as_posix() for path in [*NOTEBOOKS, *(ROOT / "nbs").rglob("[!4]*.qmd")]]
    assert sorted(listed) == sorted(pages)
    assert yaml.safe_load((ROOT / "nbs" / "_quarto.yml").read_text()) == {"metadata-files": ["../_quarto.yml", "nbdev.yml"]}


def test_sidebar_has_the_parts_in_their_order():
    start, *parts, _ = sections()
    assert start[2][0][1] == "index.ipynb" and not any(name[0].isdigit() for _, name in start[2])
    chapters = [name for *_, pages in parts for _, name in pages]
    assert chapters == sorted(chapters)
    for section, href, pages in parts:
        assert href and {name[0] for _, name in pages} == {section[0]}, "a part has the first digit of its chapters"
        assert all(text.startswith(name[:2] + " · ") for text, name in pages)


def test_reference_is_what_the_notebooks_give():
    subprocess.run([sys.executable, "scripts/reference.py", "--check"], cwd=ROOT, check=True)


class Page(HTMLParser):
    """What a page links to, its anchors, and what is wrong with its pictures."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors, self.headings, self.silent = [], set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given["id"]} if "id" in given else set()
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        wordless = tag == "img" and not given.get("alt") or tag == "svg" and not given.get("aria-label")
        if wordless and given.get("aria-hidden") != "true":
            self.silent.append(self.get_starttag_text()[:200])


@pytest.fixture(scope="module")
def site(copy, tmp_path_factory):
    """Every page as HTML, by its address."""
    if not (copy / "_proc").is_dir():
        in_copy(copy, "from nbdev.serve import proc_nbs; proc_nbs(n_workers=0, force=True)")
    folder = tmp_path_factory.mktemp("site") / "pages"
    build(copy / "_proc", folder)
    return {path.relative_to(folder).as_posix(): Page(path.read_text()) for path in folder.rglob("*.html")}


def test_pages_are_whole(site):
    assert len(site) == len(NOTEBOOKS) + len([*(ROOT / "nbs").rglob("*.qmd")])
    for name, page in site.items():
        assert not page.silent, f"{name}: pictures without words: {page.silent}"
        assert page.headings[0] == 1 and page.headings.count(1) == 1, f"{name}: {page.headings}"
        for link in page.links:
            if re.match(r"https?://|mailto:", link):
                continue
            file, _, anchor = link.partition("#")
            file = os.path.normpath(os.path.join(os.path.dirname(name), file)) if file else name
            if file.endswith(".html"):
                assert file in site, f"{name} links to {link}"
                assert not anchor or anchor in site[file].anchors, f"{name} links to {link}"


def test_version_stands_in_one_place():
    settings = configparser.ConfigParser(interpolation=None, delimiters=["="])
    settings.read(ROOT / "settings.ini")
    assert f'__version__ = "{settings["DEFAULT"]["version"]}"' in (ROOT / "distillnb" / "__init__.py").read_text()
