"""Prints the oldest supported version of every dependency, read from pyproject.toml, as constraints for pip.

    python3 -m scripts.oldest_requirements > oldest.txt
    PIP_CONSTRAINT=$PWD/oldest.txt make install

It runs before anything is installed, so it needs the standard library only.
"""

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def oldest(requirement: str) -> str:
    """The requirement pinned to its lower bound.

    Raises:
        SystemExit: it does not have exactly one lower bound.

    >>> oldest("jsonargparse[signatures]>=4.53,<5")
    'jsonargparse==4.53'
    """
    name = re.match(r"[\w.-]+", requirement)
    bounds = re.findall(r">=\s*([\w.]+)", requirement)
    if name is None or len(bounds) != 1:
        raise SystemExit(f"error: dependency {requirement!r} in {PYPROJECT.name} needs exactly one lower bound (>=)")
    return f"{name[0]}=={bounds[0]}"


def main() -> None:
    """Prints one constraint a line."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    print("\n".join(oldest(requirement) for requirement in project["dependencies"]))


if __name__ == "__main__":
    main()
