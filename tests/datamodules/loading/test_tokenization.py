"""BOS, EOS and PAD are three ids; a tokeniser comes back from its JSON description as it was."""

import json

import pytest
import torch

from core.errors import UserError
from datamodules.loading.tokenization import BPETokenizer, WordTokenizer, build_tokenizer, tokenizer_from_spec

CAPTIONS = ["A dog runs.", "A dog, a cat and a naïve café-goer's bowl", "a cat"]


@pytest.fixture(scope="module")
def gpt2(data_root):
    return BPETokenizer.load(str(data_root / "tokenizers" / "gpt2"), max_tokens=36)


def check_laws(tokenizer, text):
    ids = tokenizer.encode(text)
    assert len({tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id}) == 3
    assert ids[0] == tokenizer.bos_id
    assert ids[-1] == tokenizer.eos_id
    assert not {tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id} & set(ids[1:-1])
    assert max(*ids, tokenizer.pad_id) < tokenizer.vocab_size
    assert tokenizer.decode([*ids, tokenizer.pad_id, ids[1]]) == tokenizer.decode(ids)
    again = tokenizer_from_spec(json.loads(json.dumps(tokenizer.spec())))
    assert again.encode(text) == ids
    assert again.vocab_size == tokenizer.vocab_size
    assert again.spec() == tokenizer.spec()


def test_words():
    tokenizer = WordTokenizer.build(CAPTIONS, min_count=1, max_tokens=20)
    for text in CAPTIONS:
        check_laws(tokenizer, text)
    assert tokenizer.decode(tokenizer.encode(CAPTIONS[1])) == "a dog a cat and a naïve café-goer's bowl"
    assert tokenizer.encode("zebra")[1] == tokenizer.unk_id


def test_rare_words_are_unknown_and_order_does_not_depend_on_the_input_order():
    once = WordTokenizer.build(CAPTIONS, min_count=2, max_tokens=20)
    assert once.words[4:] == ["a", "cat", "dog"]
    assert WordTokenizer.build(CAPTIONS[::-1], 2, 20).words == once.words


def test_long_captions_are_cut_and_still_end():
    tokenizer = WordTokenizer.build(CAPTIONS, 1, max_tokens=5)
    ids = tokenizer.encode("a a a a a a a a a")
    assert len(ids) == 5
    assert ids[-1] == tokenizer.eos_id


def test_gpt2(gpt2):
    assert gpt2.vocab_size == 50257 + 2
    assert gpt2.eos_id == 50256
    for text in ["A man riding a wave.", "naïve 🐕", "a " * 100]:
        check_laws(gpt2, text)
    assert gpt2.encode("a " * 100)[:36] == gpt2.encode("a " * 100)
    assert gpt2.decode(gpt2.encode("A man riding a wave.")) == "A man riding a wave."


@pytest.fixture(scope="module")
def bert(data_root):
    return BPETokenizer.load(str(data_root / "tokenizers" / "bert-base-uncased"), max_tokens=32)


def test_bert_word_pieces_are_those_of_transformers_with_its_own_special_tokens(bert, data_root):
    from transformers import BertTokenizer

    folder = data_root / "tokenizers" / "bert-base-uncased"
    oracle = BertTokenizer.from_pretrained(str(folder), do_lower_case=True)  # transformers 5.0 guesses that it is cased
    assert (bert.bos_id, bert.eos_id, bert.pad_id) == (101, 102, 0)
    assert bert.vocab_size == len(oracle) == 30522
    for text in [*CAPTIONS, "Two T-shirts; unbelievably wet!"]:
        check_laws(bert, text)
        assert bert.encode(text) == oracle(text).input_ids
    long = "very " * 50 + "long"
    assert bert.encode(long) == oracle(long, truncation=True, max_length=32).input_ids
    assert bert.decode(bert.encode("Unbelievably wet dogs")) == "unbelievably wet dogs"
    assert bert.bos_id not in bert.encode("a [CLS] in the text")[1:]


def test_a_bare_vocabulary_with_capitals_keeps_them(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Dog", "Cat", "dog", "runs"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    cased = BPETokenizer.load(str(tmp_path), max_tokens=8)
    assert cased.encode("Dog dog runs") == [2, 5, 7, 8, 3]
    (tmp_path / "vocab.txt").write_text("\n".join([*words[:5], "dog", "runs"]) + "\n")
    assert BPETokenizer.load(str(tmp_path), max_tokens=8).encode("Dog runs") == [2, 5, 6, 3]
    (tmp_path / "vocab.txt").write_text("\n".join(words[:5]))
    with pytest.raises(UserError, match="has no vocabulary"):
        BPETokenizer.load(str(tmp_path), max_tokens=8)


def test_special_words_in_a_caption_are_no_special_tokens(gpt2):
    tokenizer = WordTokenizer.build(CAPTIONS, 1, 10)
    assert tokenizer.eos_id not in tokenizer.encode("<eos> dog")[:-1]
    check_laws(gpt2, "a <|endoftext|> dog <|pad|>")


def test_vocabulary_file_is_used_again_and_a_broken_one_made_anew(tmp_path):
    first = build_tokenizer("word", lambda: CAPTIONS, 1, 36, tmp_path)
    (path,) = tmp_path.iterdir()
    assert build_tokenizer("word", lambda: CAPTIONS, 1, 36, tmp_path).spec() == first.spec()
    path.write_text("[")
    assert build_tokenizer("word", lambda: CAPTIONS, 1, 36, tmp_path).spec() == first.spec()
    build_tokenizer("word", lambda: CAPTIONS[:1], 1, 36, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_run_folder_or_checkpoint_gives_its_own_tokenizer(tmp_path):
    spec = WordTokenizer.build(CAPTIONS, min_count=1, max_tokens=7).spec()
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": {}, "inference": {"tokenizer": spec}}, path)
    for name in (path, tmp_path / "run"):
        assert build_tokenizer(str(name), lambda: ["other words"], 1, 36, tmp_path).spec() == spec
    path.unlink()
    with pytest.raises(UserError, match="no checkpoint at"):
        build_tokenizer(str(tmp_path / "run"), [], 1, 36, tmp_path)


def test_unreachable_tokenizer_names_the_ways_out(tmp_path):
    with pytest.raises(UserError, match=r"no-such/tokenizer.*local folder.*go online.*tokenizer: word"):
        BPETokenizer.load("no-such/tokenizer", 36)
    with pytest.raises(UserError, match="cannot be read"):
        BPETokenizer.load(str(tmp_path), 36)


def test_no_usable_word_is_an_error():
    with pytest.raises(UserError, match="no word occurs 9 times"):
        WordTokenizer.build(CAPTIONS, 9, 36)
    with pytest.raises(UserError, match="max_tokens is 2"):
        WordTokenizer(["a"], max_tokens=2)
