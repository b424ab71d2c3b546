import re

import pytest
from packaging.requirements import Requirement

from scripts.oldest_requirements import PYPROJECT, main, oldest


def test_every_dependency_is_pinned_to_a_version_that_it_allows(capsys):
    main()
    pins = dict(line.split("==") for line in capsys.readouterr().out.splitlines())
    block = re.search(r"^dependencies = \[\n(.*?)^\]", PYPROJECT.read_text(), re.MULTILINE | re.DOTALL)
    requirements = [Requirement(text) for text in re.findall(r'^  "(.*?)"', block[1], re.MULTILINE)]
    assert set(pins) == {requirement.name for requirement in requirements}
    assert all(pins[requirement.name] in requirement.specifier for requirement in requirements)


@pytest.mark.parametrize("requirement", ["torch", "torch<3", "torch==2.15", "torch>=2.15,>=2.16"])
def test_a_dependency_without_one_lower_bound_is_an_error(requirement):
    with pytest.raises(SystemExit, match=r"exactly one lower bound"):
        oldest(requirement)
