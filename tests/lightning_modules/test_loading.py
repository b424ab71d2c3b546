"""What a checkpoint can be asked for without its data set."""

import pytest

from lightning_modules.loading import check_looks_itself
from networks.errors import UserError


def test_model_of_stored_regions_takes_no_pictures():
    check_looks_itself({"method": "attention_rnn"})
    with pytest.raises(UserError, match=r"detector\.tsv.*predict"):
        check_looks_itself({"regions": {"files": "detector.tsv", "width": 2048}})
