"""Writes the oldest supported version of every dependency, as pip constraints, from the lower bounds in pyproject.toml.

python scripts/oldest_requirements.py > oldest.txt
pip install -e . -c oldest.txt
"""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def oldest(requirement: str) -> str:
    """The requirement pinned to its lower bound.

    Raises:
        SystemExit: the requirement has no lower bound, or more than one.

    >>> oldest("jsonargparse[signatures]>=4.53,<5")
    'jsonargparse==4.53'
    """
    parsed = Requirement(requirement)
    bounds = [specifier.version for specifier in parsed.specifier if specifier.operator == ">="]
    if len(bounds) != 1:
        raise SystemExit(f"error: {requirement!r} in pyproject.toml needs exactly one lower bound (>=)")
    return f"{parsed.name}=={bounds[0]}"


def main() -> None:
    """Prints one constraint a line."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    print("\n".join(oldest(requirement) for requirement in project["dependencies"]))


if __name__ == "__main__":
    main()
