"""Laws of the attention RNN's module: what learns and when, what the loss counts, what is logged of the attention."""

import csv
import math
import os

import pytest
import torch
import yaml
from lightning import Callback
from PIL import Image
from torch import nn

import cli
from core.errors import UserError
from datamodules.scenes import SceneCaptions
from datamodules.scenes.pointing import named_places
from lightning_modules import AttentionRNN, load_captioner
from networks.encoders.build import build_encoder
from networks.encoders.freezing import parameters_of_map
from networks.losses.attention import doubly_stochastic_penalty, supervision_loss
from tests.conftest import ROOT
from tests.tiny import COLOURS, make_folder

ATTENTIONS = ["uniform", "bahdanau", "dot", "multi_head"]
SMALL = {"region_dim": 16, "hidden_dim": 24, "word_dim": 12, "attention_dim": 16, "heads": 2}


@pytest.fixture(scope="module")
def data():
    return SceneCaptions(num_train=6, num_val=2, num_test=2, batch_size=3)


@pytest.fixture(scope="module")
def batch(data):
    torch.manual_seed(0)
    return next(iter(data.val_dataloader()))


def make(data, **changes):
    torch.manual_seed(0)
    tokens = {name: getattr(data, name) for name in ("vocab_size", "bos_id", "eos_id", "pad_id")}
    settings = {**SMALL, **tokens, "dropout": 0.0, "image_encoder": "small-conv", "unfreeze_epoch": 0}
    module = AttentionRNN(**{**settings, **changes})
    module.inference = data.describe()
    module.tokenizer = data.tokenizer
    module.log = lambda *args, **kwargs: None
    return module


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_loss_starts_near_log_vocabulary_and_falls(data, batch, attention):
    module = make(data, attention=attention)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    first = module.training_step(batch, 0)
    assert first.item() == pytest.approx(math.log(data.vocab_size), rel=0.15)
    for _ in range(30):
        loss = module.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < first.item() / 2


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_every_parameter_learns(data, batch, attention, cell):
    module = make(data, attention=attention, cell=cell, gated=True, positions=True)
    module.training_step(batch, 0).backward()
    learning = {name: p for name, p in module.named_parameters() if p.requires_grad}
    assert [name for name, p in learning.items() if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert "captioner.encoder.layers.0.0.weight" in learning


def test_the_first_state_learns_the_words(data, batch):
    module = make(data, bag_of_words_weight=0.5)
    plain = make(data).training_step(batch, 0)
    first = module.training_step(batch, 0)
    assert first > plain
    first.backward()
    assert module.words.weight.grad.abs().sum() > 0
    assert module.captioner.decoder.initial.weight.grad.abs().sum() > 0
    assert make(data).words is None


@pytest.mark.parametrize("name", ["small-conv", "efficientnet-b0", "torchvision/squeezenet1_0", "timm/resnet18"])
def test_only_the_map_of_a_cnn_learns(name):
    encoder = build_encoder(name, None, gradient_checkpointing=name == "small-conv").eval()
    encoder.grid(torch.zeros(1, 3, 64, 64)).sum().backward()
    expected = {key for key, parameter in encoder.named_parameters() if parameter.grad is not None}
    assert set(parameters_of_map(encoder)) == expected
    assert expected


def test_padding_does_not_matter(data, batch):
    module = make(data, doubly_stochastic=1.0, attention_supervision=1.0).eval()
    loss = module.training_step(batch, 0)
    ids = nn.functional.pad(batch["caption_ids"], (0, 4), value=data.pad_id)
    torch.testing.assert_close(module.training_step({**batch, "caption_ids": ids}, 0), loss)


def test_penalty_by_hand():
    attention = torch.tensor([[[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]])
    lengths = torch.tensor([3, 2])
    sums = [(1.5, 0.5, 0.0), (0.0, 0.0, 1.0)]
    ours = [sum((tau - s) ** 2 for s in row) for row, tau in zip(sums, (2 / 3, 1 / 3), strict=True)]
    assert doubly_stochastic_penalty(attention, lengths).item() == pytest.approx(sum(ours) / 2)
    # Xu et al.'s own is the same but for a constant
    theirs = [sum((1 - s) ** 2 for s in row) for row in sums]
    constants = [3 - 2 * steps - (3 * (steps / 3) ** 2 - 2 * steps * steps / 3) for steps in (2, 1)]
    assert [a - b for a, b in zip(theirs, ours, strict=True)] == pytest.approx(constants)


def test_supervision_by_hand():
    weights, inside = torch.tensor([[0.1, 0.1, 0.8], [0.6, 0.2, 0.2]]), torch.tensor([[True, True, False]] * 2)
    assert supervision_loss(weights, inside).item() == pytest.approx(-(math.log(0.2) + math.log(0.8)) / 2)
    assert supervision_loss(weights[:0], inside[:0]).item() == 0.0


def test_supervision_teaches_to_look(data, batch):
    module = make(data, attention_supervision=1.0)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    texts = [data.tokenizer.decode(ids) for ids in batch["caption_ids"][:, 1:].tolist()]
    places = named_places(batch["scene"], batch["image_index"].tolist(), texts, (8, 8), torch.device("cpu"))
    assert len(places.step) > 5 * len(batch["scene"])

    def looks():
        _, output = module.teacher_forced(batch)
        return (output.attention[places.caption, places.step] * places.inside).sum(1).mean().item()

    before = looks()
    for _ in range(40):
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        optimizer.step()
    assert looks() > max(0.5, 2 * before)


def test_supervision_needs_scenes(data, batch):
    module = make(data, attention_supervision=0.5)
    batch = {key: value for key, value in batch.items() if key != "scene"}
    with pytest.raises(UserError, match="attention_supervision is 0"):
        module.training_step(batch, 0)


def test_scheduled_sampling_grows_by_epoch(data, monkeypatch):
    module = make(data, scheduled_sampling=0.25, scheduled_sampling_start=1, scheduled_sampling_epochs=2)
    shares = []
    for epoch in range(6):
        monkeypatch.setattr(AttentionRNN, "current_epoch", epoch)
        shares.append(module.sampling_share())
    assert shares == pytest.approx([0, 0, 0.125, 0.25, 0.25, 0.25])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_encoder": None}, "there is no image encoder"),
        ({"feature_dim": 5}, "the data module has an encoder, too"),
        ({"image_encoder": None, "feature_dim": 5}, "unfreeze_epoch is given without an image_encoder"),
        ({"heads": 3, "attention": "multi_head"}, "not divisible by heads=3"),
        ({"attention": "hard"}, "'hard' is unknown; choose uniform, bahdanau"),
    ],
)
def test_wrong_settings(data, changes, message):
    with pytest.raises(UserError, match=message):
        make(data, **changes)


# through the command line


class StopAfter(Callback):
    """Ends training behind so many epochs, as an interruption would."""

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch + 1 >= int(os.environ.get("STOP_AFTER", "1000")):
            trainer.should_stop = True


HEARD = {"beams": 3, "mbr_reranking": True, "retrieval_images": 2}


def config(path, root, epochs=3, **model):
    settings = {
        "seed_everything": 3,
        "trainer": {
            "max_epochs": epochs,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
        },
        "model": {
            "class_path": "lightning_modules.AttentionRNN",
            "init_args": {**SMALL, "max_tokens": 10, "schedule": "cosine", "warmup_steps": 2, **model},
        },
        "data": {
            "class_path": "datamodules.folder_captions.FolderCaptions",
            "init_args": {"root": str(root), "batch_size": 7, "num_workers": 0, "image_size": 32},
        },
    }
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data"))


def fit(monkeypatch, path, run, *options):
    monkeypatch.chdir(ROOT)
    assert cli.main(["fit", "--config", str(path), "--run_dir", str(run), "--wandb=off", *options]) == 0
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def encoder_of(checkpoint):
    return {k: v for k, v in checkpoint["state_dict"].items() if k.startswith("captioner.encoder.layers")}


def test_unfreezing_at_its_epoch_and_exact_resume(monkeypatch, tmp_path, folder):
    weights = tmp_path / "cnn.pth"
    torch.manual_seed(5)
    start = build_encoder("small-conv", None).state_dict()
    torch.save(start, weights)
    path = config(
        tmp_path / "a.yaml",
        folder,
        epochs=4,
        image_encoder="small-conv",
        image_weights=str(weights),
        unfreeze_epoch=2,
        beams=2,
        mbr_reranking=True,
        retrieval_images=2,
        lr=1e-2,
        lr_pretrained=1e-3,
    )
    whole = fit(monkeypatch, path, tmp_path / "runs" / "whole")

    # stopped while the CNN is frozen: not a bit has moved, and it is not in the optimiser
    stop = "--trainer.callbacks+=tests.lightning_modules.test_attention_rnn.StopAfter"
    for epochs in (2, 3):
        monkeypatch.setenv("STOP_AFTER", str(epochs))
        run = tmp_path / "runs" / f"stopped{epochs}"
        stopped = fit(monkeypatch, path, run, stop)
        groups = stopped["optimizer_states"][0]["param_groups"]
        assert [group["name"] for group in groups] == (["new"] if epochs == 2 else ["new", "pretrained"])
        same = [torch.equal(v, start[k.removeprefix("captioner.encoder.")]) for k, v in encoder_of(stopped).items()]
        assert all(same) if epochs == 2 else not any(same)
        monkeypatch.delenv("STOP_AFTER")
        assert cli.main(["resume", str(run)]) == 0
        resumed = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        assert resumed["global_step"] == whole["global_step"]
        for name, tensor in whole["state_dict"].items():
            assert torch.equal(tensor, resumed["state_dict"][name]), name
        for one, other in zip(*(c["optimizer_states"][0]["param_groups"] for c in (whole, resumed)), strict=True):
            assert one["lr"] == other["lr"]


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A run with features of a frozen encoder, made once for the tests below."""
    base = tmp_path_factory.mktemp("trained")
    vectors = base / "vectors.txt"
    vectors.write_text("red 1 2 3 4 5 6 7 8 9 10 11 12\nsquare 1 1 1 1 1 1 1 1 1 1 1 1\n")
    path = config(base / "a.yaml", folder, epochs=2, word_vectors=str(vectors), feature_grid=None, **HEARD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPTION_CACHE", str(base / "cache"))
        maps = "--trainer.callbacks+=callbacks.attention_maps.AttentionMaps"
        fit(patch, path, base / "runs" / "one", "--data.init_args.encoder=small-conv", maps)
    vectors.unlink()  # serving must not need it
    return base / "runs" / "one"


def test_checkpoint_carries_the_training_captions(trained, folder):
    """Pictures of the same colour begin in similar states, so their captions come first; no data set is needed."""
    loaded = load_captioner(trained)
    assert 0 < len(loaded.module.captioner.retrieval_index.states) <= 20
    assert loaded.module.captioner.unk_id == loaded.tokenizer.unk_id
    for index, colour in enumerate(COLOURS):
        with Image.open(folder / "images" / f"{index:02d}.png") as picture, torch.no_grad():
            memory = loaded.module.captioner.encode(loaded.image_batch([picture.convert("RGB")]))
        found = loaded.module.captioner.retrieve(memory, 1)
        rows = zip(found.token_ids[0, 0].tolist(), found.lengths[0, 0].tolist(), strict=True)
        said = {loaded.tokenizer.decode(ids[:length]) for ids, length in rows}
        assert said == {f"a {colour} picture", f"the whole square is {colour}"}


def test_a_run_on_stored_features_goes_on_with_the_cnn_that_made_them(monkeypatch, tmp_path, trained, folder):
    picture = Image.open(folder / "images" / "00.png").convert("RGB")
    own = {"image_encoder": "small-conv", "init_from": str(trained)}
    path = config(tmp_path / "a.yaml", folder, epochs=1, **HEARD, **own)
    before, states = load_captioner(trained), []
    for rate, begins in ((0.0, "null"), (1e-3, 0)):
        rates = {"unfreeze_epoch": begins, "lr": rate, "lr_pretrained": rate, "weight_decay": 0.0}
        options = [f"--model.init_args.{name}={value}" for name, value in rates.items()]
        fit(monkeypatch, path, tmp_path / str(rate), *options)
        after = load_captioner(tmp_path / str(rate))
        with torch.no_grad():
            states.append(after.module.captioner.encode(after.image_batch([picture]))["features"])
    with torch.no_grad():
        expected = before.module.captioner.encode(before.image_batch([picture]))["features"]
    torch.testing.assert_close(states[0], expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(states[1], expected, rtol=1e-3, atol=1e-3), "it was not frozen"


def test_a_run_on_features_of_another_cnn_is_refused(monkeypatch, tmp_path, capsys, trained, folder):
    monkeypatch.chdir(ROOT)
    own = {"image_encoder": "torchvision/squeezenet1_0", "init_from": str(trained)}
    path = config(tmp_path / "a.yaml", folder, epochs=1, **own)
    assert cli.main(["fit", "--config", str(path), "--run_dir", str(tmp_path / "run"), "--wandb=off"]) == 1
    assert "learnt from features of 'small-conv', but image_encoder is 'torchvision/sq" in capsys.readouterr().err


def test_validation_draws_attention_and_logs_it(trained):
    drawn = sorted(path.name for path in (trained / "attention").iterdir())
    assert len(drawn) == 4
    assert all(name.endswith(".png") for name in drawn)
    with (trained / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    entropies = [float(row["val/attention_entropy"]) for row in rows if row["val/attention_entropy"]]
    assert len(entropies) == 2
    assert all(0 < entropy <= 1 for entropy in entropies)
    assert "val/pointing" not in rows[0], "boxes are known of synthetic scenes only"
    # the vocabulary: a, red, green, blue, white, picture, the, whole, square, is
    assert [float(row["train/word_vectors_found"]) for row in rows if row["train/word_vectors_found"]] == [0.2]


def test_caption_draws_a_figure_for_every_picture(monkeypatch, capsys, trained, folder, tmp_path):
    monkeypatch.chdir(ROOT)
    (tmp_path / "other").mkdir()
    picture = folder / "images" / "00.png"
    twin = tmp_path / "other" / "00.png"
    twin.write_bytes(picture.read_bytes())
    args = ["caption", "--ckpt", str(trained), str(picture), str(twin), "--device=cpu"]
    assert cli.main([*args, "--attention", str(tmp_path / "maps"), "--batch-size=1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["00.png", "00_2.png"]
    (tmp_path / "file").touch()
    assert cli.main([*args, "--attention", str(tmp_path / "file")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_maps_are_those_of_the_steps(trained, folder):
    captioner = load_captioner(trained)
    module = captioner.module
    memory = module.captioner.encode(
        captioner.image_batch([Image.open(folder / "images" / "00.png").convert("RGB")] * 2)
    )
    short, long = module.caption_maps(memory, ["red", "the whole square is red"], captioner.tokenizer)
    assert short[0] == ["red"]
    assert long[0] == ["the", "whole", "square", "is", "red"]
    assert long[1].shape == (5, 4, 4)
    torch.testing.assert_close(long[1].sum((1, 2)), torch.ones(5))
    # the first word is written before any is read
    torch.testing.assert_close(short[1][0], long[1][0])
    (empty,) = module.caption_maps({k: v[:1] for k, v in memory.items()}, [""], captioner.tokenizer)
    assert empty[0] == []
    assert empty[1].shape == (0, 4, 4)


def test_supervised_pointing_is_logged_on_scenes(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    path = ROOT / "experiments" / "offline" / "attention_rnn.yaml"
    # enough to know every word of the grammar: captions with unknown words cannot be followed
    small = ["--data.init_args.num_train=64", "--data.init_args.num_val=8", "--data.init_args.num_test=8"]
    run = tmp_path / "runs" / "uniform"
    fit(monkeypatch, path, run, *small, "--trainer.max_epochs=1", "--model.init_args.attention=uniform")
    data = SceneCaptions(num_train=64, num_val=8, num_test=8)
    scenes = [example.image_name for example in data.examples("val")]
    captions = data.references("val").values()
    index = [number for number, texts in enumerate(captions) for _ in texts]
    places = named_places(scenes, index, [text for texts in captions for text in texts], (8, 8), torch.device("cpu"))
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val/pointing"]]
    assert float(rows[-1]["val/pointing"]) == pytest.approx(places.hit.float().mean().item(), abs=1e-4)
    nouns = places.hit[places.noun].float().mean().item()
    assert float(rows[-1]["val/pointing_noun"]) == pytest.approx(nouns, abs=1e-4)
    assert float(rows[-1]["val/attention_entropy"]) == pytest.approx(1.0)
