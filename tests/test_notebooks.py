"""The notebooks are the source: in sync, clean, well formed, and readable as pages."""
import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parent.parent
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
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", ".venv", "runs", "_docs", "_proc", "*.egg-info", "__pycache__", ".hypothesis"))
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def in_copy(copy, code):
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, env=os.environ | {"PYTHONPATH": str(copy)}, stdout=subprocess.DEVNULL)


def test_package_is_what_the_notebooks_export(copy):
    for path in (copy / "distillnb").glob("[a-z]*.py"):
        path.unlink()  # so that a module whose notebook is gone is found
    in_copy(copy, "from nbdev.export import nb_export; import nbdev; nbdev.nbdev_export()")
    for path in sorted((ROOT / "distillnb").glob("*.py")):
        assert path.read_text() == (copy / "distillnb" / path.name).read_text(), f"{path.name} differs: run make export"


def test_notebooks_are_clean(copy):
    in_copy(copy, "from nbdev.clean import nbdev_clean; nbdev_clean()")
    for path in NOTEBOOKS:
        assert path.read_text() == (copy / path.relative_to(ROOT)).read_text(), f"{path.name} holds metadata: run make export"


def test_pages_are_processed(copy):
    in_copy(copy, "from nbdev.serve import proc_nbs; proc_nbs(n_workers=0, force=True)")
    assert {path.name for path in (copy / "_proc").rglob("*.ipynb")} >= {path.name for path in NOTEBOOKS}


@each
def test_form(path):
    source = [cell.source for cell in nbformat.read(path, as_version=4).cells]
    assert re.match(r"# \S.*\n\n> \S", source[0]), "a title and one line"
    place = path.relative_to(ROOT).as_posix() if path.name != "index.ipynb" else "nbs/tutorials/walkthrough.ipynb"
    assert f"colab.research.google.com/github/distillnb/distillnb/blob/main/{place}" in source[0]
    exports = [text for text in source if re.match(r"#\| exports?\b", text)]
    if path in CHAPTERS:
        assert f"#| default_exp {path.stem[3:]}" in source
        assert exports and source[-1].endswith("nbdev.nbdev_export()") and source[-2].endswith("## Export -")
    else:
        assert not exports


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
        assert not (re.search(r"^#\| (slow|gpu)$", cell.source, re.M) and re.search(r"^\s*(import|from) ", cell.source, re.M)), cell.source


@each
def test_links_lead_somewhere(path):
    for cell in cells(path, "markdown"):
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", cell.source):
            assert (path.parent / target).exists(), target


def test_numbers_have_no_gap():
    assert [path.name[:2] for path in CHAPTERS] == [f"{i:02}" for i in range(len(CHAPTERS))]


def test_modules_import_only_what_comes_before():
    order = [path.stem[3:] for path in CHAPTERS]
    for i, module in enumerate(order):
        source = (ROOT / "distillnb" / f"{module}.py").read_text()
        imported = set(re.findall(r"^\s*from \.(\w+) import", source, re.M)) | {
            name for line in re.findall(r"^\s*from \. import (.+)$", source, re.M) for name in re.findall(r"\b[a-z]\w+", line.split("#")[0])}
        assert imported <= set(order[:i]), f"{module} imports {imported - set(order[:i])}, which come later"


def test_readme_is_the_index():
    subprocess.run([sys.executable, "scripts/readme.py", "--check"], cwd=ROOT, check=True)
    for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target


def test_sidebar_lists_every_notebook_once():
    sidebar = yaml.safe_load((ROOT / "_quarto.yml").read_text())["website"]["sidebar"]["contents"]
    listed = [name for section in sidebar for name in section["contents"]]
    assert sorted(listed) == sorted(path.relative_to(ROOT / "nbs").as_posix() for path in NOTEBOOKS)
    assert yaml.safe_load((ROOT / "nbs" / "_quarto.yml").read_text()) == {"metadata-files": ["../_quarto.yml", "nbdev.yml"]}


def test_version_stands_in_one_place():
    settings = configparser.ConfigParser(interpolation=None, delimiters=["="])
    settings.read(ROOT / "settings.ini")
    assert f'__version__ = "{settings["DEFAULT"]["version"]}"' in (ROOT / "distillnb" / "__init__.py").read_text()
