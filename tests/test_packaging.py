"""What a bare `pip install` gets: light imports, a clean wheel, no development tools at run time."""
import ast
import configparser
import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SETTINGS = configparser.ConfigParser(interpolation=None, delimiters=["="])
SETTINGS.read(ROOT / "settings.ini")
CFG = SETTINGS["DEFAULT"]

WITHOUT_TOOLS = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"nbdev", "execnb", "IPython", "jupyter", "jupyter_core", "nbformat"}:
            raise ImportError(f"{name} is a development tool")
sys.meta_path.insert(0, Refuse())
"""


def python(code, **options):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, **options)
    return done.stdout.strip()


def test_import_is_light():
    heavy = ("torch", "transformers", "pandas", "altair")
    loaded = python(f"import distillnb, distillnb.cli, sys; print([m for m in {heavy} if m in sys.modules])")
    assert loaded == "[]"


def test_import_takes_little_time():
    timing = "import time; start = time.perf_counter(); import distillnb; print(time.perf_counter() - start)"
    assert min(float(python(timing)) for _ in range(3)) < .3


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """What git knows of the project, in a folder of its own."""
    folder = tmp_path_factory.mktemp("source")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    target = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "-w", target]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, source], check=True)
    return next(target.glob("*.whl"))


PACKAGE = sorted(path.relative_to(ROOT).as_posix()
                 for pattern in ("*.py", "templates/*") for path in (ROOT / "distillnb").glob(pattern))


def test_wheel_holds_the_package_and_nothing_else(wheel):
    assert sorted(name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name) == PACKAGE


def test_source_distribution_can_be_built_from(source, tmp_path):
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, source]
    subprocess.run(command, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {*PACKAGE, "settings.ini", "README.md", "LICENSE", "setup.py"} <= names


def normal(requirement):
    """The name of a requirement, as package indexes compare them."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def imported(tree):
    """Third-party modules that a file imports: always, and those that may be missing (in functions and in `try`)."""
    always, perhaps = set(), set()
    conditional = [node for node in ast.walk(tree) if isinstance(node, (ast.Try, ast.FunctionDef))]
    within = {id(node) for outer in conditional for node in ast.walk(outer)}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "optional":
            names = [ast.literal_eval(node.args[0])]
        (perhaps if id(node) in within else always).update(name.split(".")[0] for name in names)
    ours = {*sys.stdlib_module_names, "distillnb"}
    return always - ours, perhaps - always - ours


@pytest.mark.parametrize("path", sorted((ROOT / "distillnb").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_what_is_imported_is_declared(path):
    required = {normal(line) for line in shlex.split(CFG["requirements"])}
    extras = {*CFG["extras"].split()} - {"dev"}
    extras = {normal(line) for extra in extras for line in shlex.split(CFG[f"{extra}_requirements"])}
    always, perhaps = imported(ast.parse(path.read_text()))
    packages = packages_distributions()

    def missing(modules, declared):
        return [name for name in modules if not {normal(one) for one in packages.get(name, [name])} & declared]
    assert not missing(always, required), "imported whenever the module is: they belong to the requirements"
    assert not missing(perhaps, required | extras), "imported where needed: they belong to the requirements or an extra"


def test_wheel_requires_what_settings_say(wheel):
    with zipfile.ZipFile(wheel) as file:
        metadata = file.read(next(name for name in file.namelist() if name.endswith("METADATA"))).decode()
    required = [line.removeprefix("Requires-Dist: ") for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    base = {line.replace(" ", "") for line in required if "extra ==" not in line}
    assert {"".join(sorted(line)) for line in base} == {"".join(sorted(line)) for line in shlex.split(CFG["requirements"])}
    assert not any(tool in line for line in base for tool in ("nbdev", "jupyter", "execnb"))
    assert f"Version: {CFG['version']}" in metadata and "Requires-Python: >=3.11" in metadata


def test_wheel_runs_without_development_tools(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    modules = sorted(path.stem for path in (tmp_path / "distillnb").glob("[a-z]*.py"))
    code = (f"{WITHOUT_TOOLS}\nsys.path.insert(0, {str(tmp_path)!r})\nimport importlib, distillnb\n"
            f"assert distillnb.__file__.startswith({str(tmp_path)!r})\n"
            f"for name in {modules}: importlib.import_module('distillnb.' + name)\n"
            "from distillnb.cli import main\nmain(['--help'])")
    assert "predict" in python(code, cwd=tmp_path)


def test_constraints_pin_what_is_required():
    lines = [line.split(";")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert pins["torch"] == "2.13.0"
    pinned = {normal(name) for name in pins}
    for extra in ("requirements", *(f"{extra}_requirements" for extra in CFG["extras"].split())):
        for requirement in shlex.split(CFG[extra]):
            assert normal(requirement) in pinned, f"{requirement} is not pinned in constraints.txt"
