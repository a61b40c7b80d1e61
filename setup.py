"""Package metadata, read from settings.ini so that every fact stands in one place."""
import configparser
import shlex
from pathlib import Path

from setuptools import setup

here = Path(__file__).parent
config = configparser.ConfigParser(interpolation=None, delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
minor = [int(cfg[key].split(".")[1]) for key in ("min_python", "max_python")]
readme = (here / "README.md").read_text(encoding="utf-8")
notebooks = f"{cfg['git_url']}/blob/{cfg['branch']}/nbs/"

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=readme.replace("](nbs/", f"]({notebooks}"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=cfg["git_url"],
    project_urls={"Documentation": cfg["doc_host"] + cfg["doc_baseurl"]},
    license="Apache-2.0",
    keywords=cfg["keywords"],
    classifiers=["Programming Language :: Python :: 3"]
    + [f"Programming Language :: Python :: 3.{m}" for m in range(minor[0], minor[1] + 1)],
    python_requires=f">={cfg['min_python']}",
    packages=[cfg["lib_path"]],
    package_data={cfg["lib_path"]: ["templates/*"]},
    install_requires=shlex.split(cfg["requirements"]),
    extras_require={extra: shlex.split(cfg[f"{extra}_requirements"]) for extra in cfg["extras"].split()},
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "nbdev": [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"],
    },
)
