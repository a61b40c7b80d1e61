"""The lowest versions that settings.ini allows, as constraints for pip."""
import re
from configparser import ConfigParser
from pathlib import Path


def oldest(settings: Path) -> list[str]:
    "`name==version` for each requirement of the package that has a lower bound."
    config = ConfigParser(interpolation=None, delimiters=["="])
    config.read(settings)
    found = re.findall(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", config["DEFAULT"]["requirements"])
    return [f"{name}=={version}" for name, version in found]


if __name__ == "__main__":
    print("\n".join(oldest(Path(__file__).parent.parent / "settings.ini")))
