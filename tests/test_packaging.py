"""What a bare `pip install` gets: light imports, a clean wheel, no development tools at run time."""
import configparser
import shlex
import subprocess
import sys
import zipfile
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
        if name.split(".")[0] in {"nbdev", "fastcore", "execnb", "IPython", "jupyter", "jupyter_core", "nbformat"}:
            raise ImportError(f"{name} is a development tool")
sys.meta_path.insert(0, Refuse())
"""


def python(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, **options).stdout.strip()


def test_import_is_light():
    loaded = python("import distillnb, distillnb.cli, sys; print([m for m in ('torch', 'transformers', 'pandas', 'altair') if m in sys.modules])")
    assert loaded == "[]"


def test_import_takes_little_time():
    timing = "import time; start = time.perf_counter(); import distillnb; print(time.perf_counter() - start)"
    assert min(float(python(timing)) for _ in range(3)) < .3


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", target, source], check=True)
    return next(target.glob("*.whl"))


def test_wheel_holds_the_package_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == {f"distillnb/{path.name}" for path in (ROOT / "distillnb").glob("*.py")}


def test_wheel_requires_what_settings_say(wheel):
    with zipfile.ZipFile(wheel) as file:
        metadata = file.read(next(name for name in file.namelist() if name.endswith("METADATA"))).decode()
    required = [line.removeprefix("Requires-Dist: ") for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    base = {line.replace(" ", "") for line in required if "extra ==" not in line}
    assert {"".join(sorted(line)) for line in base} == {"".join(sorted(line)) for line in shlex.split(CFG["requirements"])}
    assert not any(tool in line for line in base for tool in ("nbdev", "fastcore", "jupyter", "execnb"))
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
    lines = [line.split(";")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines if line)
    assert pins["torch"] == "2.13.0"
    for extra in ("requirements", *(f"{extra}_requirements" for extra in CFG["extras"].split())):
        for requirement in shlex.split(CFG[extra]):
            name = requirement.split(";")[0].split("[")[0].split("=")[0].split("<")[0].split(">")[0]
            assert name in pins, f"{name} is not pinned in constraints.txt"
