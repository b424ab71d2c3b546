"""What all data modules share: options declared once, members with empty answers, references to images."""

import inspect
import json
import pickle

import pytest
from jsonargparse import ArgumentError, ArgumentParser
from PIL import Image

from commands.data_sets import data_class, data_sets
from core.errors import DataError, UserError
from datamodules.base import CaptionDataModule
from datamodules.folder_captions import FolderCaptions
from datamodules.pseudo_labels import PseudoLabels
from datamodules.readers.image_refs import ImageFile
from datamodules.readers.records import Example, Problem
from datamodules.scenes import SceneCaptions
from datamodules.ucm_captions import UCMCaptions

MODULES = tuple(data_class(name) for name in data_sets() if name != "pseudo_labels")
"""All data sets; the images of pseudo-labels are those of another data module."""
SHARED = {
    name
    for name, parameter in inspect.signature(CaptionDataModule.__init__).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}


class Colours(CaptionDataModule):
    """Two images and a text."""

    def load_examples(self, split):
        self.report(Problem("record", "line 3: broken"))
        refs = [ImageFile(str(self.root / f"{name}.png")) for name in ("red", "blue")]
        return [Example(image_id=number, image=ref, captions=("a colour",)) for number, ref in enumerate([*refs, None])]


@pytest.fixture
def parser():
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_subclass_arguments(CaptionDataModule, "data")
    return parser


@pytest.mark.parametrize("module", MODULES)
def test_every_shared_option_is_forwarded_with_its_help_and_unknown_ones_are_refused(parser, module, tmp_path, capsys):
    path = f"{module.__module__}.{module.__name__}"
    with pytest.raises(SystemExit):
        parser.parse_args([f"--data.help={path}"])
    text = " ".join(capsys.readouterr().out.split())
    assert {name for name in SHARED if f"--data.{name} " in text} == SHARED
    assert "longest caption in tokens" in text
    assert "split that validate, test and predict read instead of their own" in text
    values = parser.parse_args([f"--data={path}", "--data.init_args.captions_per_image=average"]).data.init_args
    assert set(vars(values)) >= SHARED
    assert values.captions_per_image == "average"
    config = tmp_path / "config.yaml"
    for option, value in (("capitons", "1"), ("evaluate_on", "tests"), ("captions_per_image", "mean")):
        with pytest.raises(ArgumentError, match=f"{option}|{value}"):
            parser.parse_args([f"--data={path}", f"--data.init_args.{option}={value}"])
        config.write_text(json.dumps({"class_path": path, "init_args": {option: value}}))
        with pytest.raises(ArgumentError, match=f"{option}|{value}"):
            parser.parse_args([f"--data={config}"])


@pytest.mark.parametrize("module", [*MODULES, PseudoLabels, CaptionDataModule])
def test_constructors_are_keyword_only(module):
    kinds = [parameter.kind for parameter in list(inspect.signature(module.__init__).parameters.values())[1:]]
    assert set(kinds) <= {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}


def test_an_unknown_option_from_python_is_refused():
    with pytest.raises(TypeError, match="capitons"):
        UCMCaptions(capitons=1)


def test_members_have_empty_answers():
    data = SceneCaptions(num_train=2, num_val=2, num_test=2, labels="none")
    assert (data.label_names, data.num_labels, data.classes("val")) == ((), 0, {})
    assert data.baseline_captions("val") == {}
    assert "label_names" not in data.describe()
    folder = FolderCaptions()
    assert (folder.baselines("val"), folder.label_names, folder.num_labels) == ({}, (), 0)


def test_problems_are_raised_or_collected(tmp_path):
    data = Colours(root=str(tmp_path))
    with pytest.raises(DataError, match="line 3: broken"):
        data.load_examples("train")
    with data.collected_problems() as problems:
        assert len(data.load_examples("train")) == len(data.load_examples("val")) == 3
    assert list(problems) == [Problem("record", "line 3: broken")]
    with pytest.raises(DataError, match="line 3: broken"):
        data.load_examples("train")


def test_images_are_opened_by_their_references(tmp_path):
    for name in ("red", "blue"):
        Image.new("RGB", (4, 4), name).save(tmp_path / f"{name}.png")
    data = Colours(root=str(tmp_path))
    with data.collected_problems():
        data.examples("train")
    assert data.image("1").getpixel((0, 0)) == (0, 0, 255)
    with pytest.raises(DataError, match="captions alone and no image"):
        data.image("2")
    with pytest.raises(KeyError):
        data.image("3")
    ref = ImageFile(str(tmp_path / "red.png"))
    assert pickle.loads(pickle.dumps(ref)) == ref
    assert len({ref, ImageFile(ref.path), ImageFile("other.png")}) == 2
    assert (ref.file.name, ref.scene, ref.id) == ("red.png", None, ref.path)


def test_scenes_are_references_too():
    data = SceneCaptions(num_train=2, num_val=2, num_test=2)
    (first, _) = data.examples("val")
    assert first.image.file is None
    assert data.scenes("val")[first.image_id] == first.image.scene == first.image.stamp()
    assert first.image.open().size == (64, 64)


def test_average_is_a_way_of_reading_captions():
    data = SceneCaptions(num_train=4, num_val=2, num_test=2, captions_per_image="average", batch_size=2)
    assert (data.captions_per_image, data.average_token_ids) == (None, True)
    assert next(iter(data.val_dataloader()))["image_index"].tolist() == [0, 1]
    assert PseudoLabels(source=data).average_token_ids
    with pytest.raises(UserError, match="captions_per_image is 0: expected at least 1"):
        SceneCaptions(captions_per_image=0)
    with pytest.raises(UserError, match="labels is empty: give the run folder of predict"):
        PseudoLabels(source=data).examples("train")


def test_evaluation_may_have_a_batch_size_of_its_own():
    options = {"num_train": 6, "num_val": 6, "num_test": 6, "num_workers": 0, "batch_size": 2}
    for given, expected in ((None, 2), (5, 5)):
        data = SceneCaptions(**options, eval_batch_size=given)
        for own in (data, PseudoLabels(source=data)):
            assert (own.batch_size, own.eval_batch_size) == (2, given)
        evaluation = data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()
        loaders = *evaluation, data.plain_train_dataloader()
        assert [loader.batch_size for loader in loaders] == [expected] * 4
        assert data.train_dataloader().batch_size == 2
    with pytest.raises(UserError, match="eval_batch_size is 0: expected at least 1"):
        SceneCaptions(eval_batch_size=0)
