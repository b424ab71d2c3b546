"""Small untrained models, and images of scenes as files are uploaded."""

import io
from dataclasses import asdict

import pytest
import torch

from commands.serving.models import Models
from datamodules.scenes import SceneCaptions
from lightning_modules import AttentionRNN, LoadedCaptioner, LoadedClassifier, MultiLabel
from tests.twins import cases


@pytest.fixture(scope="package")
def data():
    return SceneCaptions(num_train=8, num_val=2, num_test=6)


@pytest.fixture(scope="package")
def models(data):
    torch.manual_seed(0)
    captioner = AttentionRNN.for_data(data, image_encoder="small-conv", unfreeze_epoch=0, hidden_dim=16)
    labels = MultiLabel(image_encoder="small-conv", hidden_dims=[8], num_labels=len(data.label_names))
    for module in (captioner, labels):
        module.inference = {"method": module.method, **data.describe()}
    captioner.inference["decoding"] = asdict(captioner.decoding("test"))
    teacher = next(case for case in cases() if case.twin == "emotion_teacher" and not case.variant)
    text = teacher.make(SceneCaptions(**teacher.data["init_args"]))
    return Models(
        {"rnn": LoadedCaptioner(captioner), "labels": LoadedClassifier(labels), "text": LoadedClassifier(text)}
    )


@pytest.fixture(scope="package")
def images(data):
    return [data.open_image(example) for example in data.examples("test")]


@pytest.fixture(scope="package")
def files(images):
    found = []
    for image in images:
        file = io.BytesIO()
        image.save(file, "PNG")
        found.append(file.getvalue())
    return found
