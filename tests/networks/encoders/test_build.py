import os
import socket
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from efficientnet_pytorch import EfficientNet
from safetensors.torch import save_file
from torch import nn

from core.errors import UserError
from networks.encoders.build import build_encoder
from networks.encoders.small_conv import SmallConvEncoder

DATA = Path(os.environ.get("CAPTION_DATA", Path(__file__).parents[3] / "../shared/data"))
NAMES = [
    ("small-conv", 64),
    ("efficientnet-b0", 64),
    ("timm/resnet18", 64),
    ("timm/mobilenetv3_small_050", 64),
    ("timm/test_vit", 160),
    ("torchvision/resnet18", 64),
    ("torchvision/squeezenet1_0", 64),
    ("torchvision/densenet121", 64),
]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise OSError("no network in this test")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("num_outputs", [None, 7])
@pytest.mark.parametrize(("name", "size"), NAMES)
def test_every_encoder_has_the_shapes_it_states_and_trains(name, size, num_outputs):
    torch.manual_seed(0)
    encoder = build_encoder(name, None, num_outputs=num_outputs)
    image = torch.randn(3, 3, size, size)
    vector, grid = encoder.train().vector(image), encoder.eval().grid(image)
    rows, columns = encoder.grid_shape(size)
    assert vector.shape == (3, encoder.vector_dim)
    assert num_outputs in (None, encoder.vector_dim)
    assert grid.shape == (3, rows * columns, encoder.grid_dim)
    assert vector.isfinite().all()
    vector.square().sum().backward()
    without = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without


SIZES = [224, 240, 260, 300, 380, 456, 528, 600]
"""Pixels that EfficientNet-B0 to B7 were published for (Tan and Le 2019)."""
WIDTHS = [1280, 1280, 1408, 1536, 1792, 2048, 2304, 2560]
DETECTING = ["tf_efficientnet_b0.ap_in1k", "tf_efficientnet_lite0", "cspdarknet53"]
"""Backbones of EfficientDet and its kin in timm."""


@pytest.mark.parametrize(
    ("name", "size", "width"),
    [
        *(
            pytest.param(f"efficientnet-b{number}", size, WIDTHS[number], marks=[pytest.mark.slow] * (number in (5, 6)))
            for number, size in enumerate(SIZES)
        ),
        *zip((f"timm/{name}" for name in DETECTING), (224, 224, 256), (1280, 1280, 1024), strict=True),
    ],
)
def test_efficientnets_and_backbones_of_detectors_are_built_by_name(name, size, width):
    with torch.device("meta"):
        encoder = build_encoder(name, None)
    assert encoder.grid_dim == width
    assert encoder.grid_shape(size) == (-(-size // 32), -(-size // 32))
    assert encoder.vector_dim == (1000 if name.startswith("efficientnet-") else width)


def statistics(encoder: nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    encoder.train()
    torch.manual_seed(1)
    encoder.vector(image).square().mean().backward()
    gradients = {f"grad {name}": p.grad for name, p in encoder.named_parameters()}
    return gradients | dict(encoder.named_buffers())


@pytest.mark.parametrize("name", ["small-conv", "efficientnet-b0", "timm/resnet18", "torchvision/resnet18"])
def test_gradient_checkpointing_changes_neither_gradients_nor_running_statistics(name):
    encoders = [build_encoder(name, None, gradient_checkpointing=flag) for flag in (False, True)]
    encoders[1].load_state_dict(encoders[0].state_dict())
    image = torch.randn(4, 3, 64, 64)
    plain, again = (statistics(encoder, image) for encoder in encoders)
    for key in plain:
        torch.testing.assert_close(again[key], plain[key], rtol=1e-4, atol=1e-6, msg=key)
    assert all(value == 1 for key, value in again.items() if key.endswith("num_batches_tracked"))


@pytest.mark.parametrize("size", [64, 75, 90])
def test_efficientnet_is_the_library_s_at_every_picture_size(size):
    oracle = EfficientNet.from_name("efficientnet-b0", image_size=None).eval()
    encoder = build_encoder("efficientnet-b0", None).eval()
    with torch.no_grad():
        for name, value in oracle.state_dict().items():
            if "_bn" in name and value.is_floating_point():  # norms that do something, as after training
                value.copy_(0.5 + torch.rand_like(value))
    encoder.network.load_state_dict(oracle.state_dict())
    image = torch.randn(2, 3, size, size)
    torch.testing.assert_close(encoder.vector(image), oracle(image), rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # the norms are folded into the convolutions
        torch.testing.assert_close(encoder.vector(image), oracle(image), rtol=1e-4, atol=1e-5)
        expected = oracle.extract_features(image).flatten(2).transpose(1, 2)
        torch.testing.assert_close(encoder.grid(image), expected, rtol=1e-4, atol=1e-4)


def test_efficientnet_trains_as_the_library_s():
    oracle = EfficientNet.from_name("efficientnet-b0", image_size=None)
    encoder = build_encoder("efficientnet-b0", None)
    encoder.network.load_state_dict(oracle.state_dict())
    image, gradients = torch.randn(2, 3, 64, 64), []
    for network in (oracle, encoder):
        torch.manual_seed(0)  # drop-connect and dropout draw the same numbers
        network.train()(image).square().mean().backward()
        gradients.append([p.grad for p in network.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-4)


def test_timm_grid_is_in_reading_order():
    encoder = build_encoder("timm/resnet18", None).eval()
    image = torch.randn(1, 3, 96, 96)
    features = encoder.network.forward_features(image)
    torch.testing.assert_close(encoder.grid(image)[0, 4], features[0, :, 1, 1])


def test_small_conv_keeps_positions():
    torch.manual_seed(0)
    encoder = SmallConvEncoder(num_outputs=16).eval()
    image = torch.zeros(3, 3, 64, 64)
    image[0, :, 8:16, 8:16] = image[1, :, 40:48, 40:48] = 1
    here, there, nowhere = encoder.vector(image)
    assert (here - there).norm() > 0.5 * (here - nowhere).norm()
    assert encoder.vector(torch.zeros(1, 3, 100, 80)).shape == (1, 16)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_come_from_a_local_file(tmp_path, suffix):
    for name, network in (
        ("timm/resnet18", timm.create_model("resnet18")),
        ("torchvision/resnet18", torchvision.models.resnet18()),
    ):
        path = tmp_path / f"{name.replace('/', '-')}{suffix}"
        (torch.save if suffix == ".pth" else save_file)(network.state_dict(), str(path))
        encoder = build_encoder(name, str(path)).eval()
        network.fc = nn.Identity()
        image = torch.randn(2, 3, 64, 64)
        torch.testing.assert_close(encoder.vector(image), network.eval()(image), rtol=1e-4, atol=1e-4)


def test_the_weights_file_of_the_data_folder():
    path = DATA / "weights" / "squeezenet1_0_imagenet_deepcompression.pth"
    if not path.is_file():
        pytest.skip(f"{path} not found")
    encoder = build_encoder("torchvision/squeezenet1_0", str(path))
    assert encoder.grid_shape(224) == (13, 13)
    with pytest.raises(
        UserError, match=r"does not match ResNet \(missing: conv1.weight.*unexpected: features.0.weight"
    ):
        build_encoder("torchvision/resnet18", str(path))


@pytest.mark.parametrize(
    ("name", "weights"),
    [("efficientnet-b0", "advprop"), ("timm/resnet18", "pretrained"), ("torchvision/resnet18", "imagenet")],
)
def test_unreachable_weights_name_three_ways_out(name, weights, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"cannot be reached; go online once.*local file or folder.*null"):
        build_encoder(name, weights)


def test_wrong_names_and_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"'resnet50' is unknown; give efficientnet-b0 \.\. efficientnet-b7, timm/NAME"):
        build_encoder("resnet50", None)
    with pytest.raises(UserError, match=r"timm has no model 'resnet18x'; near: .*resnet18"):
        build_encoder("timm/resnet18x", None)
    with pytest.raises(UserError, match="torchvision has no classification model 'resnet19'"):
        build_encoder("torchvision/resnet19", None)
    with pytest.raises(UserError, match=r"'advpropp' are neither .advprop. or .imagenet. nor an existing file"):
        build_encoder("efficientnet-b0", "advpropp")
    (tmp_path / "broken.pth").write_bytes(b"PK not really")
    with pytest.raises(UserError, match=r"broken\.pth' cannot be read"):
        build_encoder("small-conv", str(tmp_path / "broken.pth"))
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"broken\.safetensors' cannot be read"):
        build_encoder("small-conv", str(tmp_path / "broken.safetensors"))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="is not a state dict"):
        build_encoder("small-conv", str(tmp_path / "list.pth"))
    torch.save(SmallConvEncoder(num_outputs=8).state_dict(), tmp_path / "small.pth")
    with pytest.raises(UserError, match=r"of another shape: project.weight \(8, 2048\) instead of \(512, 2048\)"):
        build_encoder("small-conv", str(tmp_path / "small.pth"))
