import json

import numpy as np
import pytest
import torch

import cli
from callbacks.pseudo_labels import ShardWriter
from core.errors import DataError, UserError
from datamodules.base import CaptionDataModule
from datamodules.pseudo_labels import AUDIT_FILE, PseudoLabels
from datamodules.readers.records import Example
from datamodules.readers.socratis_cleaning import EMOTIONS
from datamodules.scenes import SceneCaptions
from datamodules.socratis import Socratis
from datamodules.splitting.label_selection import audit_labels, choose_labels

NAMES = ("sad", "calm", "joy")
PUBLISHED = {
    "amazed": 0.000042, "fear": 0.012952, "neutral": 0.001074, "intrigued": 0.000135, "confused": 0.499954,
    "beautiful": 0.118618, "upset": 0.000042, "concerned": 0.091075, "good": 0.014237, "anger": 0.006586,
    "joy": 0.744131, "interested": 0.011235, "calm": 0.999831, "bored": 0.999459,
    "curious": 0.0, "awe": 0.0, "disgusted": 0.0, "worried": 0.0, "hopeful": 0.0, "scared": 0.0,
}  # fmt: skip
"""Means of the published pseudo-labels of 118,287 images, as far as the notebook prints them (20 of 29)."""


class Source(CaptionDataModule):
    """Texts i0, i1, ... in train; others in val."""

    label_names = NAMES

    def __init__(self, count=40, labels=(0.0, 1.0, 1.0)):
        super().__init__(batch_size=4, num_workers=0)
        self.count, self.own = count, labels

    def load_examples(self, split):
        first = 0 if split == "train" else 1000
        return [
            Example(image_id=f"i{first + n}", image=None, captions=(f"word {n}",), labels=self.own, origin="here")
            for n in range(self.count)
        ]


def write(folder, values, names=NAMES):
    folder.mkdir(exist_ok=True)
    facts = {"label_names": json.dumps(names), "model": "x"}
    writer = ShardWriter(folder, rank=0, label_names=names, facts=facts, rows_per_file=1000, rows_per_group=1000)
    writer.append([f"i{n}" for n in range(len(values))], torch.tensor(np.asarray(values), dtype=torch.float32))
    writer.close()
    return str(folder)


@pytest.fixture
def values():
    return np.random.default_rng(0).random((40, 3)).astype(np.float32)


@pytest.fixture
def folder(tmp_path, values):
    return write(tmp_path / "pseudo_labels", values)


def examples(data, *splits):
    return {e.image_id: e for split in splits or ("train", "val") for e in data.examples(split)}


# which labels


def test_the_most_probable_labels_of_every_image():
    scores = np.random.default_rng(1).random((50, 29))
    chosen = choose_labels(scores, per_image=4)
    assert (chosen.sum(1) == 4).all()
    for row, own in zip(scores, chosen, strict=True):
        assert set(np.flatnonzero(own)) == set(np.argsort(row)[-4:])


def test_a_threshold_alone_or_with_a_limit():
    scores = np.array([[0.9, 0.6, 0.4], [0.1, 0.2, 0.3]])
    assert choose_labels(scores, None, 0.5).tolist() == [[True, True, False], [False] * 3]
    assert choose_labels(scores, 1, 0.25).tolist() == [[True, False, False], [False, False, True]]


def test_the_most_probable_images_of_every_label_among_those_that_have_it():
    scores = np.random.default_rng(2).random((60, 5))
    chosen = choose_labels(scores, per_image=2, per_label=7)
    top = choose_labels(scores, per_image=2)
    assert (chosen <= top).all()
    for label in range(5):
        have = np.flatnonzero(top[:, label])
        best = have[np.argsort(-scores[have, label])][:7]
        assert set(np.flatnonzero(chosen[:, label])) == set(best)


def test_equal_probabilities_are_cut_in_the_order_of_the_labels():
    assert choose_labels(np.full((2, 4), 0.5), per_image=2).tolist() == [[True, True, False, False]] * 2


@pytest.mark.parametrize("wrong", [(None, None, None), (0, None, None), (4, 1.5, None), (4, None, 0)])
def test_rules_out_of_range_are_refused(wrong):
    with pytest.raises(UserError, match=r"per_image"):
        choose_labels(np.zeros((1, 2)), *wrong)


# the audit


def published_labels(count=20_000):
    """Labels with the published shares; what is left of 4 an image is spread over those that were not printed."""
    rest = [name for name in EMOTIONS if name not in PUBLISHED]
    share = PUBLISHED | dict.fromkeys(rest, (4 - sum(PUBLISHED.values())) / len(rest))
    chances = np.array([share[name] for name in EMOTIONS])
    return np.random.default_rng(0).random((count, 29)) < chances


@pytest.fixture(scope="module")
def real(data_root):
    data = Socratis(root=str(data_root / "socratis"), val_fraction=0, test_fraction=0, captions_only=True)
    return np.array([example.labels for example in data.examples("train")])


def test_the_published_labels_have_collapsed(real):
    target = real.mean(0)
    audit = audit_labels(published_labels(), EMOTIONS, target)
    assert audit.collapsed
    assert audit.overused == ("calm", "bored")
    assert {"curious", "awe", "disgusted", "worried", "hopeful", "scared"} <= set(audit.unused)
    assert audit.distance > 0.5
    assert audit.labels_per_image == pytest.approx(4, abs=0.05)
    assert len(audit.reasons) == 3
    warning = audit.warning()
    assert warning.startswith("THE PSEUDO-LABELS HAVE COLLAPSED: calm on 99.9")
    assert "% (target 7%), bored on " in warning
    assert "\n" not in warning
    assert audit_labels(published_labels(), EMOTIONS).collapsed, "also without a target"


def test_the_targets_own_labels_have_not_collapsed(real):
    audit = audit_labels(real, EMOTIONS, real.mean(0))
    assert audit.reasons == ()
    assert audit.warning() is None
    assert audit.distance == 0
    assert audit.entropy == pytest.approx(audit.target_entropy)
    assert json.loads(json.dumps(audit.to_json()))["collapsed"] is False


def test_one_label_on_no_image_is_no_collapse_yet():
    labels = np.array([[n % 2, n % 3 == 0, n % 5 == 0, n % 2 == 0, n % 7 == 0, n % 11 == 0, 0, 0] for n in range(80)])
    target = [0.3] * 7 + [0.0]
    assert audit_labels(labels, "abcdefgh", target).unused == ("g",)
    assert audit_labels(labels, "abcdefgh", target).reasons == ()
    assert len(audit_labels(labels, "abcdefgh", [0.3] * 8).reasons) == 1


def test_numbers_of_the_audit_by_hand():
    audit = audit_labels([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]], NAMES, [0.5, 0.25, 0.25])
    assert (audit.images, audit.without_label, audit.different_sets) == (4, 1, 3)
    assert audit.share == {"sad": 0.75, "calm": 0.5, "joy": 0.0}
    assert audit.entropy == pytest.approx(-(0.6 * np.log2(0.6) + 0.4 * np.log2(0.4)))
    assert audit.target_entropy == pytest.approx(1.5)
    assert audit.distance == pytest.approx(0.25)
    assert audit.unused == ("joy",)


def test_a_label_that_the_target_has_as_often_is_no_sign_of_a_collapse():
    labels = np.array([[1, n % 2, n % 3 == 0] for n in range(60)])
    assert audit_labels(labels, NAMES, labels.mean(0)).reasons == ()
    assert audit_labels(labels, NAMES, [0.3, 0.5, 0.3]).overused == ("sad",)


# the data module


def test_labels_replace_the_sources_own(folder, values):
    data = PseudoLabels(source=Source(), labels=folder, per_image=1)
    found = examples(data)
    assert set(found) == {f"i{n}" for n in range(40)}
    for n in range(40):
        assert np.flatnonzero(found[f"i{n}"].labels).tolist() == [values[n].argmax()]
        assert found[f"i{n}"].captions == (f"word {n}",)
    assert len(data.examples("val")) == 4
    assert data.examples("test") == data.examples("val")
    assert data.label_names == NAMES
    assert data.describe()["label_names"] == list(NAMES)
    batch = next(iter(data.train_dataloader()))
    assert batch["labels"].sum(1).tolist() == [1.0] * 4
    assert PseudoLabels(source=Source(), labels=folder.removesuffix("/pseudo_labels"), per_image=1).num_labels == 3


def test_soft_targets_are_the_probabilities_of_all_labels(folder, values):
    found = examples(PseudoLabels(source=Source(), labels=folder, per_image=1, targets="soft"))
    assert np.allclose(found["i7"].labels, values[7])
    some = PseudoLabels(
        source=Source(), labels=folder, per_image=None, threshold=0.9, targets="soft", on_collapse="error"
    )
    assert set(examples(some)) == {f"i{n}" for n in range(40) if values[n].max() >= 0.9}


def test_a_sample_is_seeded_and_has_the_asked_size(folder):
    one, same = (PseudoLabels(source=Source(), labels=folder, per_image=1, sample_fraction=0.5) for _ in range(2))
    other = PseudoLabels(source=Source(), labels=folder, per_image=1, sample_fraction=0.5, sample_seed=7)
    assert len(examples(one)) == 20
    assert set(examples(one)) == set(examples(same)) != set(examples(other))
    assert one.audit.images == 20
    assert [e.image_id for e in one.examples("train")] == sorted(
        (e.image_id for e in one.examples("train")), key=lambda name: int(name[1:])
    )


def test_images_without_probabilities_are_left_out_and_counted(folder, caplog):
    data = PseudoLabels(source=Source(count=60), labels=folder, per_image=1)
    assert len(examples(data)) == 40
    assert "20 of 60 images have no probabilities" in caplog.text


def test_what_does_not_fit_is_named(folder, tmp_path):
    with pytest.raises(DataError, match=r"none of its 40 images is in split 'val' of Source \(such as i1000\)"):
        PseudoLabels(source=Source(), labels=folder, split="val").examples("train")
    with pytest.raises(DataError, match="write them with python"):
        PseudoLabels(source=Source(), labels=str(tmp_path / "nothing")).examples("train")
    with pytest.raises(UserError, match=r"sample_fraction=0"):
        PseudoLabels(source=Source(), labels=folder, sample_fraction=0)
    target = Source()
    target.label_names = ("a", "b", "c")
    with pytest.raises(UserError, match=r"the target Source has other labels \(a, b, c \.\.\.\)"):
        PseudoLabels(source=Source(), labels=folder, target=target).examples("train")


def test_collapsed_labels_can_be_refused_and_are_told_loudly(tmp_path, caplog):
    values = np.tile([[0.1, 0.9, 0.8]], (40, 1))
    folder = write(tmp_path / "out", values)
    arguments = {"per_image": 2, "target": Source(labels=(1.0, 0.0, 0.0))}
    with pytest.raises(UserError, match=r"THE PSEUDO-LABELS HAVE COLLAPSED: calm on 100\.00%"):
        PseudoLabels(source=Source(), labels=folder, **arguments, on_collapse="error").setup("fit")
    PseudoLabels(source=Source(), labels=folder, **arguments).setup("fit")
    assert "THE PSEUDO-LABELS HAVE COLLAPSED" in caplog.text


def scene_labels(folder, count=40):
    scenes = SceneCaptions(num_train=count, labels="emotions")
    names = scenes.label_names
    rows = scenes.examples("train")
    facts = {"label_names": json.dumps(names), "model": "x"}
    writer = ShardWriter(folder, rank=0, label_names=names, facts=facts, rows_per_file=1000, rows_per_group=1000)
    writer.append([str(e.image_id) for e in rows], torch.tensor([e.labels for e in rows]))
    writer.close()
    return names


def test_scenes_keep_their_pictures_and_workers_can_be_started(tmp_path):
    names = scene_labels(tmp_path)
    source = SceneCaptions(num_train=40, labels="none", num_workers=1, batch_size=8)
    data = PseudoLabels(source=source, labels=str(tmp_path), per_image=2)
    data.num_workers = 1
    batch = next(iter(data.val_dataloader()))
    assert batch["image"].shape[1:] == (3, 64, 64)
    assert batch["labels"].shape[1] == len(names)
    assert len(batch["scene"]) == len(batch["image"])


def test_a_configuration_file_nests_the_source_and_the_run_gets_the_audit(tmp_path, capsys):
    names = scene_labels(tmp_path)
    scenes = {"class_path": "datamodules.scenes.SceneCaptions", "init_args": {"num_train": 40, "batch_size": 8}}
    config = {
        "trainer": {"max_steps": 1, "accelerator": "cpu", "limit_val_batches": 0, "enable_progress_bar": False},
        "model": {"class_path": "lightning_modules.EmotionLabeller", "init_args": {"architecture": "text"}},
        "data": {
            "class_path": "datamodules.pseudo_labels.PseudoLabels",
            "init_args": {
                "source": scenes,
                "labels": str(tmp_path),
                "per_image": 2,
                "target": {**scenes, "init_args": {**scenes["init_args"], "labels": "emotions"}},
            },
        },
    }
    path = tmp_path / "student.yaml"
    path.write_text(json.dumps(config))
    run = tmp_path / "run"
    assert cli.main(["fit", "--config", str(path), "--run_dir", str(run), "--wandb=off"]) in (0, None)
    audit = json.loads((run / AUDIT_FILE).read_text())
    assert list(audit["share"]) == list(names)
    assert audit["images"] == 40
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["inference"]["label_names"] == list(names)
    flags = ["--source=datamodules.scenes.SceneCaptions", "--source.num-train=40", "--per-image=2"]
    assert cli.main(["data", "check", "pseudo_labels", "--labels", str(tmp_path), *flags]) == 0
    assert "40 images, 2.00 labels each" in capsys.readouterr().out
