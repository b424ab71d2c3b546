"""Any captioner can be guided by the run of a classifier that it has never seen."""

import dataclasses

import pytest
import torch

from core.errors import UserError
from datamodules.scenes.emotions import EMOTION_NAMES
from lightning_modules import PrefixClassification
from lightning_modules.serving import LoadedCaptioner
from networks.generation.search import decode
from networks.generation.settings import DecodingSettings
from tests.lightning_modules.parts.test_condition import PLAIN, made, with_feelings  # noqa: F401  # a fixture
from tests.twins import saved_and_loaded

SETTINGS = {
    "greedy": DecodingSettings(max_tokens=8),
    "beams": DecodingSettings(max_tokens=8, beams=3),
    "samples": DecodingSettings(max_tokens=8, sample=True, num_captions=3),
}


def run_of_classifier(data, path, names=EMOTION_NAMES):
    """A checkpoint of a classifier with strong opinions."""
    torch.manual_seed(0)
    module = PrefixClassification.for_data(data, word_dim=8, hidden_dim=8)
    torch.nn.init.normal_(module.classifier.head.weight, std=3.0)
    module.inference = {"method": module.method, **data.describe(), "condition_names": list(names)}
    torch.save(
        {
            "state_dict": module.state_dict(),
            "hyper_parameters": dict(module.hparams),
            "inference": module.inference,
        },
        path,
    )
    return str(path)


@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_every_captioner_is_guided_in_every_way_of_decoding(case, made, tmp_path):  # noqa: F811
    data, batch = made(with_feelings(case))
    module = with_feelings(case, control=run_of_classifier(data, tmp_path / "guide.ckpt")).make(data).eval()
    module.check_settings()
    assert not [name for name in module.state_dict() if "control" in name]
    names = [*EMOTION_NAMES[:5], None]
    own = module.control_for(names)
    for name, settings in SETTINGS.items():
        with torch.no_grad():
            memory = module.captioner.encode(batch)
            plain, off, on = (
                decode(module.captioner, memory, each, torch.Generator().manual_seed(0), control)
                for each, control in (
                    (settings, None),
                    (dataclasses.replace(settings, control_strength=0.0), own),
                    (dataclasses.replace(settings, control_strength=5.0), own),
                )
            )
        assert torch.equal(plain.token_ids, off.token_ids), name
        assert torch.equal(plain.log_prob, off.log_prob), name
        assert not torch.allclose(plain.log_prob[:5], on.log_prob[:5], rtol=1e-3), name
        if not settings.sample:  # whose rows share random numbers
            torch.testing.assert_close(plain.log_prob[5:], on.log_prob[5:])
        label = torch.arange(5).repeat_interleave(plain.lengths.shape[1])
        judged = [
            own.classifier.whole(one.token_ids.flatten(0, 1), one.lengths.flatten())[torch.arange(len(label)), label]
            for one in (plain, on)
        ]
        assert judged[1].mean() > judged[0].mean(), name


def test_names_of_labels_are_matched_not_their_numbers(made, tmp_path):  # noqa: F811
    data, _ = made(with_feelings(PLAIN[0]))
    turned = run_of_classifier(data, tmp_path / "guide.ckpt", EMOTION_NAMES[::-1])
    module = with_feelings(PLAIN[0], control=turned).make(data)
    module.check_settings()
    assert module.control_for(["awe", None]).labels.tolist() == [EMOTION_NAMES[::-1].index("awe"), -1]
    with pytest.raises(UserError, match="does not know 'grief': it knows"):
        module.control_for(["grief"])
    few = run_of_classifier(data, tmp_path / "few.ckpt", [*EMOTION_NAMES[:-1], "grief"])
    with pytest.raises(UserError, match=f"does not know '{EMOTION_NAMES[-1]}'"):
        with_feelings(PLAIN[0], control=few).make(data).check_settings()


def test_a_loaded_captioner_writes_as_the_one_that_was_saved(made, tmp_path):  # noqa: F811
    """Through two files; with the classifier, a captioner that knows no labels can be asked for some."""
    case = with_feelings(PLAIN[0])
    data, _ = made(case)
    guide = run_of_classifier(data, tmp_path / "guide.ckpt")
    module = case.make(data)
    module.inference["decoding"] = {"max_tokens": 8, "control_strength": 4.0}
    image = data.open_image(data.examples("val")[0])
    found = []
    for each in (module, saved_and_loaded(module, tmp_path / "one.ckpt")):
        each.use_control(guide)
        captioner = LoadedCaptioner(each)
        assert each.conditions_known() == EMOTION_NAMES
        found.append([captioner.caption(image, emotion=name) for name in EMOTION_NAMES])
        assert captioner.decoding(control_strength=0.0).control_strength == 0.0
        settings = captioner.decoding(beams=4, control_rerank=2.0)
        assert len(captioner.caption(image, settings, emotion="awe")[0]) == 1
        with pytest.raises(UserError, match="trained without emotions"):
            captioner.decoding(guidance=2.0)
    assert found[0] == found[1]
    assert len({str(captions) for captions in found[0]}) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"control": "captioner"},
            "is of method 'attention_rnn': expected a run of experiments/prefix_classifier.yaml",
        ),
        ({"control": "other words"}, "was trained with another vocabulary than this captioner has"),
        ({"control": "nowhere"}, "nowhere"),
        ({"control_rerank": 1.0}, "control_rerank is 1.0 without a control"),
        ({"control_words": 0}, "control_words is 0: expected 1 or more"),
    ],
)
def test_what_cannot_guide_is_refused_in_a_line(options, message, made, tmp_path):  # noqa: F811
    case = with_feelings(next(case for case in PLAIN if case.twin == "attention_rnn"))
    data, _ = made(case)
    if options.get("control") == "captioner":
        saved_and_loaded(case.make(data), tmp_path / "captioner")
    if options.get("control") == "other words":
        other = PrefixClassification.for_data(data, word_dim=8, hidden_dim=8)
        other.inference = {"method": other.method, **data.describe(), "tokenizer": {"kind": "word", "words": []}}
        saved_and_loaded(other, tmp_path / "other words")
    if "control" in options:
        options = {**options, "control": str(tmp_path / options["control"])}
    module = dataclasses.replace(case, options={**case.options, **options}).make(data)
    with pytest.raises(UserError, match=message):
        module.check_settings()


def test_captions_without_labels_teach_nothing(made):  # noqa: F811
    """They are left out of the loss, bit by bit; data without any are refused."""
    data, batch = made(with_feelings(PLAIN[0]))
    module = PrefixClassification.for_data(data, word_dim=8, hidden_dim=8, dropout=0.0)
    labels = batch["condition"].clone()
    labels[3:] = -1
    ids, lengths = batch["caption_ids"], batch["caption_lengths"]
    own = module.step_loss({"caption_ids": ids[:3], "caption_lengths": lengths[:3], "condition": labels[:3]})[0]
    torch.testing.assert_close(module.step_loss({**batch, "condition": labels})[0], own)
    assert module.step_loss({**batch, "condition": torch.full_like(labels, -1)})[0] == 0
    module.inference = {"method": module.method}
    with pytest.raises(UserError, match="captions of this data have no labels"):
        module.check_settings()
