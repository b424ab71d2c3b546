"""Words as features: their order does not matter, other words do, and a store is made once."""

import numpy as np
import torch

from datamodules.stored_features.words import word_store, word_vector


def test_a_vector_knows_words_and_not_their_order():
    one = word_vector("A man, who waits.", 512)
    assert np.array_equal(one, word_vector("waits who man a", 512))
    assert not np.array_equal(one, word_vector("a man who runs", 512))
    np.testing.assert_allclose(np.linalg.norm(one.astype(float)), 512**0.5, rtol=1e-2)
    assert not word_vector("...", 512).any()


def test_a_store_has_a_row_for_each_caption_and_is_made_once(tmp_path):
    captions = [f"caption {number} of many" for number in range(300)]
    store = word_store(captions, 64, tmp_path)
    assert store.shape == (300, 1, 64)
    for row in (0, 255, 256, 299):
        assert torch.equal(store[row, 0], torch.from_numpy(word_vector(captions[row], 64)))
    made = (store.folder / "features.npy").stat().st_mtime_ns
    again = word_store(captions, 64, tmp_path)
    assert (again.folder / "features.npy").stat().st_mtime_ns == made
    assert word_store(captions[::-1], 64, tmp_path).folder != store.folder
