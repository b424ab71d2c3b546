"""Gradient checkpointing of every method: fewer bytes are kept for the backward pass, and nothing else changes."""

import copy
import dataclasses

import pytest
import torch

from lightning_modules import METHODS
from tests.flag_table import as_documented
from tests.twins import batch_maker, cases

CASES = [case for case in cases() if case.variant in ("", "stored", "no-text_lr_factor", "no-head_only")]
RECOMPUTED = [case for case in CASES if case.options.get("architecture") != "text"]
"""A linear model on words keeps nothing but its inputs."""
NOTHING = {("ucm_distillation-stored", 0.0), ("ucm_multilabel-stored", 0.0)}
"""A head of one layer, without dropout, on features: all that it keeps is the input of the next layer."""
BERT = {"layers": 2, "heads": 2, "bert_dim": 16}
VARIANTS = {
    "attention_rnn": {
        "gru-multi-head": {"cell": "gru", "attention": "multi_head", "gated": True},
        "uniform": {"attention": "uniform"},
        "sampling": {"scheduled_sampling": 0.5},
        "bag-of-words": {"bag_of_words_weight": 0.3},
    },
    "code_captioning": {
        "regions": {"attention": "bahdanau"},
        "attention-rnn": {"decoder": "attention_rnn", "attention": "dot"},
        "sampling": {"scheduled_sampling": 0.5},
        "first-word": {"entry": "first_word"},
    },
    "text_autoencoder": {"sampling": {"scheduled_sampling": 0.5}, "gru": {"cell": "gru", "layers": 3}},
    "dual_transfer": {name: {"merging": name} for name in ("mlp", "batch_norm", "gru", "two_sided")},
    "transformer_captioner": {"one-layer": {"layers": 1}},
    "emotion_labeller": {
        "visual-bert": {"architecture": "visual_bert", "image_encoder": "small-conv", **BERT},
        "bert-resnet": {"architecture": "bert_resnet", "image_encoder": "small-conv", **BERT},
    },
}


def with_variants():
    """The cases, and variants of the plain ones."""
    for case in RECOMPUTED:
        yield case
        if not case.variant:
            for name, options in VARIANTS.get(case.method.method, {}).items():
                known = {key: value for key, value in options.items() if key in case.method.options()}
                assert known.keys() == options.keys()
                yield dataclasses.replace(case, options={**case.options, **options}, variant=name)


ALL = list(with_variants())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Data module and a training batch of a case."""
    with batch_maker(tmp_path_factory.mktemp("cache"), captions_per_image=2) as make:
        yield make


def with_dropout(case, share, **options):
    """The case with this much dropout everywhere."""
    dropouts = {name: share for name in case.method.options() if name.endswith("dropout") and name != "teacher_dropout"}
    dropouts = {name: share for name in dropouts if allows(case, name)}
    return dataclasses.replace(case, options={**case.options, **dropouts, **options})


def allows(case, name):
    """The attention RNN's decoder hides no words."""
    return not (name == "word_dropout" and case.options.get("decoder") == "attention_rnn")


def trained(module, batch):
    """Bytes kept by a forward pass, the loss, all gradients and all buffers after it."""
    own = {value.untyped_storage().data_ptr() for value in (*module.parameters(), *module.buffers())}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _ = module.step_loss(batch)
    loss.backward()
    gradients = {name: value.grad for name, value in module.named_parameters() if value.grad is not None}
    return sum(kept.values()), loss.detach(), gradients, dict(module.named_buffers())


SHARES = [(case, share) for case in ALL for share in (0.0, 0.3) if share or case in CASES]


@pytest.mark.parametrize(("case", "share"), SHARES, ids=str)
def test_fewer_bytes_are_kept_and_nothing_else_changes(case, share, made):
    data, batch = made(case)
    plain = with_dropout(case, share).make(data)
    less = with_dropout(case, share, gradient_checkpointing=True).make(data)
    less.load_state_dict(plain.state_dict())
    assert not plain.recomputed_parts()
    results = [trained(module.train(), copy.deepcopy(batch)) for module in (plain, less)]
    (bytes_kept, *expected), (fewer, *found) = results
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    if (str(case), share) in NOTHING:
        assert (less.recomputed_parts(), fewer) == ([], bytes_kept)
    else:
        with as_documented(case, "checkpointing"):
            assert less.recomputed_parts()
            assert fewer < 0.97 * bytes_kept


def test_every_method_is_there():
    assert {case.method for case in CASES} == set(METHODS.values())


@pytest.mark.parametrize("case", [case for case in CASES if case not in RECOMPUTED], ids=str)
def test_what_keeps_nothing_recomputes_nothing(case, made):
    module = with_dropout(case, 0.0, gradient_checkpointing=True).make(made(case)[0])
    with as_documented(case, "checkpointing"):
        assert module.recomputed_parts()


def test_a_frozen_part_is_not_counted(made):
    case = next(case for case in CASES if case.twin == "attention_rnn" and not case.variant)
    module = with_dropout(case, 0.0, gradient_checkpointing=True).make(made(case)[0])
    assert module.recomputed_parts() == ["captioner.encoder", "captioner.decoder"]
    module.let_encoder_learn(False)
    assert module.recomputed_parts() == ["captioner.decoder"]


def test_a_long_caption_is_recomputed_in_segments(made, monkeypatch):
    case = next(case for case in CASES if case.twin == "attention_rnn" and case.variant == "stored")
    data, batch = made(case)
    module = with_dropout(case, 0.0, gradient_checkpointing=True).make(data).train()
    decoder, lengths = module.captioner.decoder, []
    steps = decoder._steps
    monkeypatch.setattr(decoder, "_steps", lambda *args: lengths.append(len(args[4])) or steps(*args))
    module.step_loss(batch)[0].backward()
    total = int(batch["caption_lengths"].max()) - 1
    assert sum(lengths) == 2 * total  # forward, and again in the backward pass
    assert max(lengths) ** 2 <= total
