"""Laws of the stages of distillation: what learns, what is handed over, what a finished run needs."""

import json
import shutil

import pytest
import torch
import yaml

import cli
from core.errors import UserError
from datamodules.scenes import SceneCaptions
from datamodules.ucm_captions import UCMCaptions
from lightning_modules import (
    CodeCaptioning,
    Distillation,
    LoadedClassifier,
    TextAutoencoding,
    load_captioner,
)
from lightning_modules.loading import load_module
from lightning_modules.parts.handover import check_same_features
from lightning_modules.serving import load_classifier
from lightning_modules.text_autoencoder import different, varied
from metrics.losses import loss_metric
from reporting.attention import attending
from tests.conftest import ROOT

TOKENS = ("vocab_size", "bos_id", "eos_id", "pad_id")
TEXT = {"word_dim": 6, "hidden_dim": 8, "dropout": 0.0}
IMAGE = {"image_encoder": "small-conv", "hidden_dims": [8], "normalize": False, "word_dim": 6, "hidden_dim": 8}


@pytest.fixture(scope="module")
def data():
    return SceneCaptions(num_train=12, num_val=4, num_test=4, batch_size=4, labels="objects")


@pytest.fixture(scope="module")
def batch(data):
    torch.manual_seed(0)
    return next(iter(data.val_dataloader()))


def make(kind, data, **changes):
    torch.manual_seed(0)
    facts = {name: getattr(data, name) for name in TOKENS}
    settings = {**TEXT, **facts}
    if kind is Distillation:
        settings = {**IMAGE, "vocab_size": data.vocab_size, "num_labels": data.num_labels, "dropout": 0.0}
    if kind is CodeCaptioning:
        settings = {**IMAGE, **facts, "num_labels": data.num_labels, "dropout": 0.0, "image_dropout": 0.0}
    module = kind(**{**settings, **changes})
    module.inference = data.describe()
    module.log = lambda *args, **kwargs: None
    return module


MODULES = [
    (Distillation, {"text_lr_factor": 1.0, "label_weight": 1.0}),
    (CodeCaptioning, {"label_weight": 1.0, "attend_code": True, "attention": "bahdanau"}),
    (CodeCaptioning, {"decoder": "attention_rnn", "decoder_dim": 10, "attend_code": True, "attention": "dot"}),
    (CodeCaptioning, {"decoder": "attention_rnn", "attention": "bahdanau", "scheduled_sampling": 0.2}),
    (CodeCaptioning, {"entry": "first_word"}),
]


@pytest.mark.parametrize(("kind", "changes"), MODULES)
def test_loss_falls_and_every_parameter_learns(data, batch, kind, changes):
    module = make(kind, data, **changes)
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-2)
    module.training_step(batch, 0).backward()
    dead = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    assert dead == []
    first = None
    for _ in range(30):
        loss = module.training_step(batch, 0)
        first = first if first is not None else loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.9 * first


def test_a_loss_that_is_no_number_shows_in_the_epochs_mean():
    loss = loss_metric()
    loss.update(torch.tensor([1.0, float("nan")]))
    assert loss.compute().isnan()


@pytest.mark.parametrize("kind", [TextAutoencoding, CodeCaptioning])
def test_the_share_of_own_words_grows_by_epoch(data, monkeypatch, kind):
    module, shares = make(kind, data, scheduled_sampling=0.5, scheduled_sampling_epochs=2), []
    for epoch in range(4):
        monkeypatch.setattr(kind, "current_epoch", epoch)
        shares.append(module.sampling_share())
    assert shares == [0, 0.25, 0.5, 0.5]
    assert make(kind, data, scheduled_sampling=0.5).sampling_share() == 0.5


def test_teachers_are_left_out_at_random_and_do_not_learn(data, batch):
    student = make(Distillation, data, teacher_dropout=0.5, label_weight=1.0)
    teacher = make(Distillation, data, label_weight=1.0).requires_grad_(False).eval()
    student._teachers = [teacher, teacher, teacher]
    torch.manual_seed(0)
    counts = [len(student._chosen_teachers()) for _ in range(400)]
    assert set(counts) == {0, 1, 2, 3}
    assert sum(counts) / 1200 == pytest.approx(0.5, abs=0.06)
    student.training_step(batch, 0).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any(name.startswith("_teachers") for name in student.state_dict())


def test_equal_captions_count_once(data, batch):
    module = make(TextAutoencoding, data)
    twice = {name: torch.cat([batch[name]] * 2) for name in ("caption_ids", "caption_lengths")}
    once, again = (module.training_step(b, 0) for b in ({**batch, **twice}, batch))
    torch.testing.assert_close(once, again)
    ids, lengths, place = different(twice["caption_ids"], twice["caption_lengths"])
    assert torch.equal(ids[place], twice["caption_ids"])
    assert torch.equal(lengths[place], twice["caption_lengths"])


def test_varied_captions_are_captions(batch):
    torch.manual_seed(0)
    ids, lengths = batch["caption_ids"], batch["caption_lengths"]
    same = varied(ids, lengths, 0.0, 0.0, 0)
    assert torch.equal(same[0], ids)
    new, sizes = varied(ids, lengths, 1.0, 1.0, 0)
    assert new.shape == ids.shape
    for row, size in zip(new.tolist(), sizes.tolist(), strict=True):
        assert (row[0], row[size - 1]) == (1, 2)
        assert all(token > 2 for token in row[1 : size - 1])
        assert row[size:] == [0] * (len(row) - size)
    assert not torch.equal(new, ids)


def test_every_sentence_once_and_the_same_vocabulary(tmp_path):
    images = [
        {"filename": f"{n}.tif", "imgid": n, "split": split, "sentences": [{"tokens": t.split()} for t in texts]}
        for n, split, texts in [
            (1, "train", ["b b b a", "b b b a", "c a"]),
            (2, "train", ["C a", "b b b a"]),
            (3, "train", ["d d"]),
            (4, "val", ["d d", "d d"]),
            (5, "test", ["c a"]),
        ]
    ]
    (tmp_path / "dataset.json").write_text(json.dumps({"dataset": "other", "images": images}))
    whole, distinct = (
        UCMCaptions(root=str(tmp_path), repeated=way, captions_only=True) for way in ("keep", "distinct")
    )
    assert [example.captions for example in distinct.examples("train")] == [("b b b a", "c a"), ("d d",)]
    assert [example.captions for example in distinct.examples("val")] == [("d d", "d d")]
    assert distinct.tokenizer.spec() == whole.tokenizer.spec()


def write(path, name, **model):
    config = yaml.safe_load((ROOT / "experiments" / "offline" / f"{name}.yaml").read_text())
    config["model"]["init_args"].update(model)
    config["data"]["init_args"].update(num_train=40, num_val=6, num_test=6)
    small = {"max_epochs": 1, "enable_progress_bar": False, "num_sanity_val_steps": 0}
    config["trainer"] = {**config["trainer"], **small, "callbacks": config["trainer"].get("callbacks", [])}
    path.write_text(json.dumps(config))
    return str(path)


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """All stages, one epoch each, through the command line."""
    folder = tmp_path_factory.mktemp("stages")
    text = {"word_dim": 6, "hidden_dim": 8}
    image = {**text, "hidden_dims": [8]}
    runs = {name: folder / name for name in ("text", "distil", "assisted", "caption", "attending")}

    def fit(name, experiment, **model):
        config = write(folder / f"{name}.json", experiment, **model)
        assert cli.main(["fit", "--config", config, "--run_dir", str(runs[name]), "--wandb=off"]) == 0

    fit("text", "ucm_text_autoencoder", **text)
    fit("distil", "ucm_distillation", **image, text_from=str(runs["text"]))
    teachers = [str(runs["distil"])]
    fit("assisted", "ucm_distillation", **text, hidden_dims=[4], text_from=str(runs["text"]), teachers_from=teachers)
    fit(
        "caption",
        "ucm_captioning",
        **image,
        text_from=str(runs["text"]),
        image_from=str(runs["distil"]),
        mbr_reranking=True,
        retrieval_images=3,
        attention="dot",
        label_weight=1.0,
    )
    fit(
        "attending",
        "ucm_captioning",
        **image,
        text_from=str(runs["text"]),
        image_from=str(runs["distil"]),
        decoder="attention_rnn",
        decoder_dim=10,
        attention="bahdanau",
        lr=0.0,
    )
    return runs


def test_captioner_shows_where_it_looks_and_labels_pictures(stages, data, tmp_path, capsys):
    picture = tmp_path / "scene.png"
    data.prepare_data()
    data.open_image(data.examples("test")[0]).save(picture)
    maps = tmp_path / "maps"
    assert cli.main(["caption", "--ckpt", str(stages["caption"]), str(picture), "--attention", str(maps)]) == 0
    assert (maps / "scene.png").stat().st_size > 5000
    capsys.readouterr()
    assert cli.main(["label", "--ckpt", str(stages["caption"]), str(picture), "--json"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in data.label_names)
    served = load_classifier(stages["caption"])
    assert set(served.label_names) == set(data.label_names)
    assert served.threshold == 0.5
    probabilities = served.label([str(picture)])[0]
    assert ((probabilities > 0) & (probabilities < 1)).all()
    assert cli.main(["label", "--ckpt", str(stages["distil"]), str(picture)]) == 0
    plain = CodeCaptioning(**IMAGE, vocab_size=9)
    with pytest.raises(UserError, match=r"gives no labels \(one with model.init_args.label_weight does\)"):
        LoadedClassifier(plain)
    with pytest.raises(UserError, match="has no attention to draw"):
        attending(plain, "--attention")


def test_maps_are_the_regions_shares(data, batch):
    """What the summary takes is left out, so that a map is the same thing in every method."""
    for guided in (False, True):
        module = make(CodeCaptioning, data, attention="dot", attend_code=guided).eval()
        memory = module.captioner.encode(batch)
        words = [data.tokenizer.decode(ids) for ids in batch["caption_ids"][:4].tolist()]
        for found, maps in module.caption_maps({k: v[:4] for k, v in memory.items()}, words, data.tokenizer):
            assert len(found) == len(maps)
            assert maps.shape[1] == maps.shape[2]
            torch.testing.assert_close(maps.flatten(1).sum(1), torch.ones(len(maps)))


def test_stages_hand_over(stages):
    text, distil = (load_module(stages[name]) for name in ("text", "distil"))
    for name, value in text.autoencoder.encoder.state_dict().items():
        assert torch.equal(distil.text.state_dict()[name], value), name  # frozen, so still the same
    header = (stages["distil"] / "metrics.csv").read_text().splitlines()[0]
    assert "val/recall_at_1" in header
    assert (stages["distil"] / "codes.png").stat().st_size > 5000
    rows = json.loads((stages["text"] / "reconstructions.json").read_text())
    assert len(rows) > 10
    assert all(set(row) == {"image_id", "original", "reconstruction"} and row["original"] for row in rows)
    assert not (stages["text"] / "predictions.json").exists()
    assert "val/unseen_bleu4" in (stages["text"] / "metrics.csv").read_text().splitlines()[0]


def test_the_attention_rnns_decoder_starts_from_both_stages(stages):
    """Its rate is 0, so what has been taken over is still there."""
    text, distil, attending = (load_module(stages[name]) for name in ("text", "distil", "attending"))
    words = text.autoencoder.decoder.words.embedding.weight
    assert torch.equal(attending.captioner.decoder.embedding.weight, words)
    assert torch.equal(attending.captioner.coder.project.weight, distil.coder.project.weight)
    captioner = load_captioner(stages["attending"])
    assert captioner.module.captioner.decoder.cell.rnn.hidden_size == 10


def test_finished_captioner_stands_alone(stages, data, tmp_path):
    alone = shutil.copytree(stages["caption"], tmp_path / "alone")
    hidden = {name: path.rename(path.with_name(f"{name}_away")) for name, path in stages.items()}
    try:
        data.prepare_data()
        picture = data.open_image(data.examples("test")[0])
        captioner = load_captioner(alone)
        assert isinstance(captioner.caption([picture])[0][0][0], str)
        assert len(captioner.module.captioner.retrieval_index.states) == 40
        assert cli.main(["test", "--ckpt_path", str(alone), "--run_dir", str(tmp_path / "test")]) == 0
    finally:
        for name, path in hidden.items():
            path.rename(stages[name])
    figures = json.loads((tmp_path / "test" / "metrics.json").read_text())["this model"]
    assert 1 <= figures["distinct"] <= 6


def test_what_does_not_fit_says_so(stages, tmp_path, capsys):
    def fails(experiment, **model):
        config = write(tmp_path / "wrong.json", experiment, **model)
        assert cli.main(["fit", "--config", config, "--run_dir", str(tmp_path / "wrong"), "--wandb=off"]) == 1
        shutil.rmtree(tmp_path / "wrong", ignore_errors=True)
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        return line

    text = {"word_dim": 6, "hidden_dim": 8, "text_from": str(stages["text"])}
    line = fails("ucm_distillation", **{**text, "hidden_dim": 9})
    assert "hidden_dim=8, this run hidden_dim=9" in line
    assert "is of method 'text_autoencoder'" in fails("ucm_captioning", **text, image_from=str(stages["text"]))
    assert "image_from" in fails("ucm_captioning", **text, hidden_dims=[9], image_from=str(stages["distil"]))
    line = fails("ucm_captioning", **text, hidden_dims=[8], pooling="mean", image_from=str(stages["distil"]))
    assert "has pooling=mean_max, this run pooling=mean: set model.init_args.pooling=mean_max" in line
    assert "text_from is null" in fails("ucm_distillation")


def test_a_head_goes_on_with_the_features_it_knows():
    def run(name, weights, digest):
        return {"encoder": {"name": name, "weights": weights, "digest": digest}}

    def check(theirs, own):
        check_same_features({"inference": theirs}, own, "image_from", "RUN")

    one = run("torchvision/squeezenet1_0", "/here/w.pth", "a")
    check(one, one)
    check(one, run("torchvision/squeezenet1_0", "/there/w.pth", "a"))  # the same file elsewhere
    check({}, {})
    with pytest.raises(UserError, match=r"set data\.init_args.encoder=torchvision/squeezenet1_0"):
        check(one, run("eight-views/torchvision/squeezenet1_0", "/here/w.pth", "a"))
    with pytest.raises(UserError, match=r"set data\.init_args.encoder_weights to the same"):
        check(one, run("torchvision/squeezenet1_0", "/here/w.pth", "b"))
    with pytest.raises(UserError, match=r"set data\.init_args.encoder_weights to the same"):
        check(one, run("torchvision/squeezenet1_0", None, None))


def test_stages_of_ucm_see_the_same_features():
    """Their configurations, as they are, fit together."""
    stages = [
        yaml.safe_load((ROOT / f"experiments/ucm_{name}.yaml").read_text())
        for name in ("multilabel", "distillation", "captioning")
    ]
    data = [stage["data"]["init_args"] for stage in stages]
    assert len({(one["encoder"], one["encoder_weights"], one.get("image_size", 224)) for one in data}) == 1
    assert (
        len(
            {
                str(stage["model"]["init_args"].get("hidden_dims", [512])) + stage["model"]["init_args"]["pooling"]
                for stage in stages
            }
        )
        == 1
    )


def test_rate_of_the_text_encoder_is_its_own_group(stages, tmp_path):
    config = write(
        tmp_path / "slow.json", "ucm_distillation", word_dim=6, hidden_dim=8, hidden_dims=[8], text_lr_factor=0.01
    )
    args = ["--model.init_args.text_from", str(stages["text"]), "--model.init_args.lr=0.001"]
    assert cli.main(["fit", "--config", config, *args, "--run_dir", str(tmp_path / "slow"), "--wandb=off"]) == 0
    state = torch.load(tmp_path / "slow" / "checkpoints" / "last.ckpt", weights_only=True)
    rates = {group["name"]: group["initial_lr"] for group in state["optimizer_states"][0]["param_groups"]}
    assert rates["text"] == pytest.approx(1e-5)
    assert rates["new"] == pytest.approx(1e-3)
    before, after = (load_module(path).state_dict() for path in (stages["text"], tmp_path / "slow"))
    name = "rnn.weight_hh_l0"
    assert not torch.equal(before[f"autoencoder.encoder.{name}"], after[f"text.{name}"])


def test_numbers_out_of_range():
    with pytest.raises(UserError, match="text_lr_factor is -1"):
        Distillation(text_lr_factor=-1, image_encoder="small-conv", hidden_dim=8)
    with pytest.raises(UserError, match="teacher_dropout is 1"):
        Distillation(teacher_dropout=1, image_encoder="small-conv", hidden_dim=8)
    with pytest.raises(UserError, match="there is no image encoder"):
        CodeCaptioning(hidden_dim=8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "without anything to attend to: set attention, or attend_code=true"),
        (
            {"attention": "dot", "word_input": "one_hot"},
            "word_input is 'one_hot' with decoder=attention_rnn: expected 'embedding'",
        ),
        ({"attention": "dot", "word_dropout": 0.1}, "word_dropout is 0.1 with decoder=attention_rnn: expected 0.0"),
        (
            {"attend_code": True, "entry": "first_word"},
            "entry is 'first_word' with decoder=attention_rnn: expected 'state'",
        ),
        ({"decoder": "code", "decoder_dim": 9}, "decoder_dim is 9 with decoder=code: set hidden_dim instead"),
        ({"decoder": "rnn"}, "decoder is 'rnn': expected one of code, attention_rnn"),
    ],
)
def test_the_attention_rnns_decoder_says_what_it_needs(changes, message):
    with pytest.raises(UserError, match=message):
        CodeCaptioning(**{**IMAGE, "decoder": "attention_rnn", **changes})
