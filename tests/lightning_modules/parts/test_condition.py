"""Conditions are a part of every captioner: nothing changes without them, each caption has its own, names travel."""

import dataclasses

import pytest
import torch

from core.errors import UserError
from datamodules.scenes.emotions import EMOTION_NAMES
from lightning_modules.captioning import CaptioningModule
from lightning_modules.parts.condition import own_labels
from lightning_modules.serving import LoadedCaptioner
from networks.generation.search import decode
from networks.generation.settings import DecodingSettings
from networks.layers.sequences import select_rows, target_mask
from tests.twins import batch_maker, cases, saved_and_loaded

PLAIN = [case for case in cases() if issubclass(case.method, CaptioningModule) and case.variant == ""]


def with_feelings(case, **options):
    """A case on captions that say feelings."""
    data = {**case.data, "init_args": {**case.data["init_args"], "feelings": True}}
    return dataclasses.replace(case, data=data, options={**case.options, "conditioned": False, **options})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with batch_maker(tmp_path_factory.mktemp("cache"), captions_per_image=2) as make:
        yield make


def learnt(case, data):
    """A conditioned module with vectors that are not zero."""
    module = with_feelings(case, conditioned=True).make(data).eval()
    torch.nn.init.normal_(module.captioner.conditions.weight)
    return module


@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_an_unconditioned_captioner_is_unchanged_bit_by_bit(case, made):
    """By the option, by dropping every condition, and by captions without labels."""
    plain = with_feelings(case)
    data, batch = made(plain)
    without = {name: value for name, value in batch.items() if name != "condition"}
    expected = plain.make(data).eval()
    module = with_feelings(case, conditioned=True, condition_dropout=1.0).make(data)
    assert set(module.state_dict()) - set(expected.state_dict()) == {"captioner.conditions.weight"}
    torch.nn.init.normal_(module.captioner.conditions.weight)
    none = {**batch, "condition": torch.full_like(batch["condition"], -1)}
    with torch.no_grad():
        loss = expected.step_loss(without)[0]
        assert torch.equal(loss, expected.step_loss(batch)[0])
        assert torch.equal(loss, module.eval().step_loss(without)[0])
        torch.testing.assert_close(module.step_loss(none)[0], loss)
        assert not torch.allclose(module.step_loss(batch)[0], loss, rtol=1e-5)
        torch.manual_seed(0)
        dropped = module.train().step_loss(batch)[0]
        torch.manual_seed(0)
        torch.rand(len(batch["condition"]))  # which decides what is dropped
        torch.testing.assert_close(dropped, module.step_loss(without)[0])


@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_each_caption_has_its_own_condition_in_training_and_decoding(case, made):
    data, batch = made(with_feelings(case))
    module = learnt(case, data)
    captioner, ids, lengths = module.captioner, batch["caption_ids"], batch["caption_lengths"]
    with torch.no_grad():
        memory = captioner.encode(batch)
        found = captioner(*module.captions_of(batch, memory)).logits
        rows, state, scores = captioner.under(memory, batch["condition"], batch["image_index"]), None, []
        for token in ids[:, :-1].unbind(1):
            logits, state = captioner.step(rows, token, state)
            scores.append(logits)
        expected = torch.stack(scores, dim=1)[target_mask(lengths, ids.shape[1])]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        others = {**batch, "condition": (batch["condition"] + 1) % len(EMOTION_NAMES)}
        assert not torch.allclose(captioner(*module.captions_of(others, memory)).logits, found, rtol=1e-3)


@pytest.mark.parametrize("case", PLAIN, ids=str)
@pytest.mark.parametrize("beams", [1, 3])
def test_guidance_of_one_is_the_condition_and_of_zero_is_none(case, beams, made):
    data, batch = made(with_feelings(case))
    module = learnt(case, data)
    captioner = module.captioner
    with torch.no_grad():
        memory = captioner.encode(batch)
        labels = [0, 1, 2, 3, 4, -1]
        under = module.under(memory, labels)

        def decoded(read, guidance):
            found = decode(captioner, read, DecodingSettings(beams=beams, max_tokens=8, guidance=guidance))
            return found.token_ids, found.log_prob

        for one, other in ((decoded(under, 0.0), decoded(memory, 1.0)), (decoded(memory, 3.0), decoded(memory, 1.0))):
            assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))
        plain = decoded(under, 1.0)
        near = decoded(under, 1.0 + 1e-6)  # both passes
        torch.testing.assert_close(plain[1], near[1], rtol=1e-4, atol=1e-4)
        strong = decoded(under, 4.0)
        assert not torch.allclose(strong[1][:5], plain[1][:5], rtol=1e-3)
        # of a row that is asked for nothing, both passes are the same
        last = decoded(select_rows(memory, torch.tensor([5])), 1.0)
        torch.testing.assert_close(strong[1][5:], last[1], rtol=1e-4, atol=1e-4)


def test_a_checkpoint_remembers_names_and_captions_can_be_asked_for_them(made, tmp_path):
    case = PLAIN[0]
    data, _ = made(with_feelings(case))
    module = learnt(case, data)
    module.inference["decoding"] = {"max_tokens": 8}
    captioner = LoadedCaptioner(saved_and_loaded(module, tmp_path / "one.ckpt"))
    assert captioner.module.condition_names == EMOTION_NAMES
    image = data.open_image(data.examples("val")[0])
    with torch.no_grad():
        memory = captioner.module.captioner.encode(captioner.image_batch([image]))
        for name in ("awe", "sadness"):
            under = captioner.module.under(memory, [EMOTION_NAMES.index(name)])
            found = decode(captioner.module.captioner, under, captioner.settings)
            expected = captioner.tokenizer.decode(found.token_ids[0, 0].tolist())
            assert captioner.caption(image, emotion=name)[0][0][0] == expected
    with pytest.raises(UserError, match=r"^emotion is 'sad' \(did you mean sadness\?\): .* knows amusement, awe"):
        captioner.caption(image, emotion="sad")
    plain = with_feelings(case).make(data)
    plain.inference["decoding"] = {"max_tokens": 8}
    unconditioned = LoadedCaptioner(plain)
    for ask in (lambda: unconditioned.caption(image, emotion="awe"), lambda: unconditioned.decoding(guidance=2.0)):
        with pytest.raises(UserError, match="trained without emotions or other labels"):
            ask()


def test_what_evaluation_asks_for(made):
    case = with_feelings(PLAIN[0], conditioned=True)
    data, batch = made(case)
    module = case.make(data)
    assert module.wanted_labels(batch) == own_labels(batch)
    images, labels = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([3, 2, 2, -1, 5])
    votes = {"image_id": ["a", "b", "c"], "image_index": images, "condition": labels}
    assert own_labels(votes) == [2, 5, -1]
    module.condition_on = "fear"
    assert module.wanted_labels(batch) == [EMOTION_NAMES.index("fear")] * 6
    module.condition_on = "spread"
    many = {"image_id": [str(number) for number in range(800)]}
    found = module.wanted_labels(many)
    assert min(found.count(label) for label in range(8)) > 70


@pytest.mark.parametrize(
    ("options", "feelings", "message"),
    [
        ({"conditioned": True}, False, "captions of this data have no labels"),
        ({"append_word": True}, False, "append_word is true, but captions of this data have no labels"),
        ({"condition_on": "joy"}, True, "condition_on is 'joy': expected one of own, spread, amusement, awe"),
        ({"condition_dropout": 1.5}, True, "condition_dropout is 1.5: expected 0 to 1"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_a_line(options, feelings, message, made):
    case = with_feelings(PLAIN[0], **options)
    if not feelings:
        case.data["init_args"]["feelings"] = False
    module = case.make(made(case)[0])
    with pytest.raises(UserError, match=message):
        module.check_settings()
