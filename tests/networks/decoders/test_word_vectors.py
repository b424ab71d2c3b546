import pytest
import torch

from core.errors import DataError, UserError
from networks.captioners.attention_rnn import AttentionRNNCaptioner
from networks.decoders.word_vectors import read_word_vectors
from networks.layers.attention import build_attention

WORDS = {"dog": 5, "cat": 6, "zebra": 7}


def written(tmp_path, text: str, encoding: str = "utf-8") -> str:
    path = tmp_path / "vectors.txt"
    path.write_bytes(text.encode(encoding))
    return str(path)


@pytest.mark.parametrize("header", ["", "3 2\n"])
def test_both_formats(tmp_path, header):
    path = written(tmp_path, header + "the 9 9\ndog 1.5 -2\ncat 0.25 1e-2\n")
    found = read_word_vectors(path, WORDS, 2)
    assert found.ids.tolist() == [5, 6]
    torch.testing.assert_close(found.vectors, torch.tensor([[1.5, -2.0], [0.25, 0.01]]))
    assert found.share == pytest.approx(2 / 3)


def test_capitals_are_second_choice_and_the_first_line_counts(tmp_path):
    path = written(tmp_path, "Dog 1 1\nDOG 2 2\nCat 3 3\ncat 4 4\ncat 5 5\n")
    found = read_word_vectors(path, WORDS, 2)
    assert found.vectors.tolist() == [[1, 1], [4, 4]]


def test_words_with_blanks_and_odd_bytes_are_passed_over(tmp_path):
    path = written(tmp_path, "the 0 0\ndog food 7 7\nna\xefve 1 1\ndog 8 8 \r\n", encoding="latin-1")
    assert read_word_vectors(path, WORDS, 2).vectors.tolist() == [[8, 8]]


def test_nothing_found(tmp_path):
    found = read_word_vectors(written(tmp_path, "the 1 2\n"), WORDS, 2)
    assert found.vectors.shape == (0, 2)
    assert found.share == 0


def test_errors_name_file_line_and_way_out(tmp_path):
    with pytest.raises(UserError, match=r"file of word vectors 'nowhere.txt' does not exist"):
        read_word_vectors("nowhere.txt", WORDS, 2)
    with pytest.raises(UserError, match=r"vectors.txt has 3 numbers for each word, but word_dim=2; set it to 3"):
        read_word_vectors(written(tmp_path, "the 1 2 3\n"), WORDS, 2)
    with pytest.raises(UserError, match="set it to 300"):
        read_word_vectors(written(tmp_path, "400000 300\nthe 1 2\n"), WORDS, 2)
    with pytest.raises(DataError, match=r"vectors.txt, line 2: the word 'dog' is not followed by 2 finite numbers"):
        read_word_vectors(written(tmp_path, "the 1 2\ndog 1 x\n"), WORDS, 2)
    with pytest.raises(DataError, match="line 2: the word 'dog'"):
        read_word_vectors(written(tmp_path, "the 1 2\ndog 1 nan\n"), WORDS, 2)
    with pytest.raises(DataError, match="line 2: the word 'dog'"):
        read_word_vectors(written(tmp_path, "the 1 2\ndog 1\n"), WORDS, 2)
    with pytest.raises(DataError, match="line 1: not a word and its numbers"):
        read_word_vectors(written(tmp_path, "\x1f\x8b\x00binary stuff\n"), WORDS, 2)


@pytest.mark.parametrize("tied", [False, True])
def test_the_captioner_starts_from_them(tmp_path, tied):
    captioner = AttentionRNNCaptioner(
        attention=build_attention("dot", region_dim=8, hidden_dim=8, attention_dim=8),
        vocab_size=50,
        feature_dim=6,
        word_dim=2,
        tied_embeddings=tied,
        bos_id=0,
        eos_id=1,
        pad_id=2,
    )
    before = captioner.decoder.embedding.weight.detach().clone()
    path = written(tmp_path, "dog 0.3 0.4\ncat 0.4 0.3\n")
    assert captioner.load_word_vectors(path, WORDS) == pytest.approx(2 / 3)
    after = captioner.decoder.embedding.weight.detach()
    # scaled to the random start: root mean square 1 as it is read
    torch.testing.assert_close(after[5] * captioner.decoder.word_scale, torch.tensor([0.3, 0.4]) / (0.125**0.5))
    torch.testing.assert_close(after[5] / after[6], torch.tensor([0.75, 4 / 3]))
    others = [index for index in range(50) if index not in (5, 6)]
    assert torch.equal(after[others], before[others])
    assert (captioner.decoder.vocabulary.weight is captioner.decoder.embedding.weight) == tied
