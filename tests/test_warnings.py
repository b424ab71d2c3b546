"""The suite's filter: a warning that a line of ours causes is an error, those of libraries are not."""

import warnings

import pytest


def warn_in(module):
    exec("import warnings; warnings.warn('old name', FutureWarning)", {"__name__": module})


@pytest.mark.parametrize("module", ["cli", "core.errors", "metrics", "networks.layers.weights", __name__])
def test_ours_is_an_error(module):
    with pytest.raises(FutureWarning, match="old name"):
        warn_in(module)


@pytest.mark.parametrize("module", ["torch.nn", "torchmetrics.core", "corelib", "sklearn.metrics", "tests2.a"])
def test_a_librarys_is_not(module):
    with warnings.catch_warnings(record=True) as seen:
        warn_in(module)
    assert [str(warning.message) for warning in seen] == ["old name"]
