import doctest

import pytest

from metrics import captions, character_bleu, tokenize


@pytest.mark.parametrize("module", [captions, character_bleu, tokenize])
def test_examples_in_the_docstrings_hold(module):
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed
