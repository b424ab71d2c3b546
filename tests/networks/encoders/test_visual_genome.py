import dataclasses
import importlib.util

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from torchvision.ops import box_iou

from core.errors import UserError
from networks.encoders.build import build_encoder
from networks.encoders.pictures import scaled, scaled_size
from networks.encoders.visual_genome.config import DetectorConfig, HeadConfig, ProposalConfig, read_config
from networks.encoders.visual_genome.encoder import GenomeEncoder
from networks.encoders.visual_genome.loading import genome_shape
from networks.encoders.visual_genome.network import GenomeNetwork
from tests.genome import BOXES, SETTINGS, WIDTH, write_genome


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("genome")
    write_genome(path)
    return path


@pytest.fixture(scope="module")
def encoder(folder):
    return build_encoder("frcnn-vg", str(folder), whole_pictures=True).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pictures():
    """A batch of two pictures, the second smaller than the first."""
    pixels = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 255
    pixels = F.avg_pool2d(pixels, 9, 1, 4)  # no plain noise: places differ
    return pixels, torch.tensor([[64, 96], [64, 80]])


def test_features_come_with_a_mask_and_absent_boxes_are_zero(encoder, pictures):
    features, mask = encoder.picture_regions(*pictures)
    assert features.shape == (2, BOXES, WIDTH) == (2, encoder.boxes, encoder.grid_dim)
    assert mask.all()
    assert (features.std(dim=1) > 1e-3).any(), "boxes differ"
    many = GenomeEncoder(config=encoder.config, boxes=50).eval()
    many.network.load_state_dict(encoder.network.state_dict())
    features, mask = many.picture_regions(*pictures)
    assert not mask.all()
    assert (features[~mask] == 0).all()
    assert (mask.int().diff(dim=1) <= 0).all(), "the real ones come first"
    assert encoder.grid_shape(224) == (1, BOXES)


def test_a_picture_gives_the_same_alone_and_in_a_batch_whatever_it_is_padded_with(encoder, pictures):
    pixels, sizes = pictures
    features, _ = encoder.picture_regions(pixels, sizes)
    alone, _ = encoder.picture_regions(pixels[1:, :, :, :80], sizes[1:])
    assert torch.equal(alone[0], features[1])
    other = pixels.clone()
    other[1, :, :, 80:] = float("nan")
    assert torch.equal(encoder.picture_regions(other, sizes)[0], features)
    assert not torch.allclose(encoder.regions(pixels[1:])[0][0], features[1]), "more picture is another picture"


def test_boxes_are_in_the_picture_best_first_and_overlap_little(encoder, pictures):
    for found, (height, width) in zip(encoder.detect(*pictures), pictures[1].tolist(), strict=True):
        assert (found.scores.diff() <= 0).all()
        assert (found.boxes >= 0).all()
        assert (found.boxes[:, [0, 2]] <= width).all()
        assert (found.boxes[:, [1, 3]] <= height).all()
        overlaps = box_iou(found.boxes, found.boxes).fill_diagonal_(0)
        assert overlaps.max() <= max(encoder.config.heads.overlaps)
        assert len(found.proposals) <= encoder.config.proposals.after


def test_a_threshold_that_leaves_too_few_boxes_is_followed_by_the_next(encoder, pictures):
    pixels, sizes = pictures
    counts = []
    for overlaps in ((1e-6,), (1e-6, 0.99), (0.99, 1e-6)):
        heads = dataclasses.replace(encoder.config.heads, overlaps=overlaps, boxes=12, least_boxes=12)
        other = GenomeEncoder(config=dataclasses.replace(encoder.config, heads=heads)).eval()
        other.network.load_state_dict(encoder.network.state_dict())
        counts.append([len(found.boxes) for found in other.detect(pixels, sizes)])
    assert max(counts[0]) < 12
    assert counts[1] == counts[2] == [12, 12]


def test_where_nothing_is_proposed_the_whole_picture_is_the_box(encoder, pictures):
    wanted = dataclasses.replace(encoder.config.proposals, least_side=1000.0)
    network = GenomeNetwork(dataclasses.replace(encoder.config, proposals=wanted)).eval()
    network.load_state_dict(encoder.network.state_dict())
    (proposals,) = network.proposal_generator(network.backbone(pictures[0][:1]), (64, 96))
    assert proposals.tolist() == [[0, 0, 96, 64]]


def test_it_stays_frozen(encoder):
    assert not any(module.training for module in encoder.train().modules())


def test_colours_and_scale_are_those_of_the_settings(encoder, pictures):
    picture = pictures[0][0]
    normalised = encoder._normalised(picture)
    assert torch.allclose(normalised[0], picture[2] - 103.0)  # blue first
    assert torch.allclose(normalised[2], picture[0] - 123.0)


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (333, 500), (100, 300), (800, 800), (7, 5000)])
def test_pictures_keep_their_proportions(size):
    height, width = scaled_size(size, (800, 1333))
    assert min(height, width) == 800 or max(height, width) == 1333
    assert max(height, width) <= 1333
    assert abs(height / width - size[0] / size[1]) < 0.01 * size[0] / size[1] + 1 / max(height, width)


def test_scaling_interpolates_between_pixels_without_rounding():
    picture = torch.tensor([[[0, 255], [0, 255]]] * 3, dtype=torch.uint8)
    large = scaled(picture, (4, 100))
    assert large.shape == (3, 4, 4)
    assert large[0, 0].tolist() == [0, 63.75, 191.25, 255]


# files


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
def test_a_folder_gives_settings_and_weights(tmp_path, file, prefix):
    state = write_genome(tmp_path / "weights", file, prefix)
    encoder = build_encoder("frcnn-vg@4", str(tmp_path / "weights"), whole_pictures=True)
    assert encoder.config == read_config(tmp_path / "weights" / "config.yaml")
    assert (encoder.boxes, encoder.config.heads.boxes, encoder.sides) == (4, 6, (64, 96))
    assert {name: value.tolist() for name, value in encoder.network.state_dict().items()} == {
        name: value.tolist() for name, value in state.items()
    }
    assert genome_shape("frcnn-vg", str(tmp_path / "weights")) == (WIDTH, BOXES)


def test_what_a_file_does_not_say_is_as_published(tmp_path):
    (tmp_path / "config.yaml").write_text("RPN:\n  NMS_THRESH: 0.5\nROI_HEADS:\n  NMS_THRESH_TEST: 0.3\n")
    config = read_config(tmp_path / "config.yaml")
    assert config == DetectorConfig(proposals=ProposalConfig(overlap=0.5), heads=HeadConfig(overlaps=(0.3,)))
    assert (config.resnet.width, config.heads.boxes) == (2048, 36) == genome_shape("frcnn-vg", None)


def bad(place, value):
    settings = {key: dict(part) if isinstance(part, dict) else part for key, part in SETTINGS.items()}
    section, _, key = place.partition(".")
    if key:
        settings[section][key] = value
    else:
        settings[section] = value
    return yaml.safe_dump(settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "expected the settings of a detector"),
        ("RPN: !!python/object:os.system {}", "not valid YAML"),
        (bad("RESNETS.DEPTH", 18), "RESNETS.DEPTH: 18: expected one of 50, 101, 152"),
        (bad("RESNETS.NORM", "GN"), "RESNETS.NORM: 'GN': expected one of BN"),
        (bad("RESNETS.STEM_OUT_CHANNELS", "64"), "STEM_OUT_CHANNELS: '64': expected a value like 64"),
        (bad("RESNETS.RES2_OUT_CHANNELS", 10**9), "RES2_OUT_CHANNELS: 1000000000: expected at most"),
        (bad("RESNETS.NUM_GROUPS", True), "NUM_GROUPS: True: expected a value like 1"),
        (bad("RPN.NMS_THRESH", float("nan")), "NMS_THRESH: nan: expected at most"),
        (bad("MODEL.PIXEL_MEAN", [1.0]), "MODEL.PIXEL_MEAN: 1 numbers: expected 3"),
        (bad("MODEL.PIXEL_STD", [1.0, 0.0, 1.0]), "expected a number above 0"),
        (bad("MAX_DETECTIONS", 0), "MAX_DETECTIONS: expected a number above 0"),
        (bad("ROI_HEADS.NUM_CLASSES", 6), r"cls_score.weight \(6, 64\) instead of \(7, 64\)"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, folder, text, message):
    (tmp_path / "pytorch_model.bin").write_bytes((folder / "pytorch_model.bin").read_bytes())
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        build_encoder("frcnn-vg", str(tmp_path), whole_pictures=True)
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named(tmp_path, folder, monkeypatch):
    def build(name, weights):
        build_encoder(name, weights, whole_pictures=True)

    with pytest.raises(UserError, match=r"the folder has neither: expected config\.yaml and model\.safetensors or"):
        build("frcnn-vg", str(tmp_path))
    (tmp_path / "config.yaml").write_text("RPN: {}")
    with pytest.raises(UserError, match=r"the folder has config\.yaml: expected"):
        build("frcnn-vg", str(tmp_path))
    for weights in (str(tmp_path / "config.yaml"), "/gone", "./gone", "imagenet"):
        with pytest.raises(UserError, match=r"expected a folder .* or a hub id such as unc-nlp/frcnn-vg-finetuned"):
            build("frcnn-vg", weights)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"config\.yaml of 'nobody/nothing' cannot be reached; go online once"):
        build("frcnn-vg", "nobody/nothing")
    for name in ("frcnn-vg@0", "frcnn-vg@x", "frcnn-vg@"):
        with pytest.raises(UserError, match="frcnn-vg@N for N boxes"):
            build(name, None)


def test_code_in_the_weights_is_not_run(tmp_path, folder):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    (tmp_path / "config.yaml").write_bytes((folder / "config.yaml").read_bytes())
    torch.save({"backbone.stem.conv1.weight": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be read"):
        build_encoder("frcnn-vg", str(tmp_path), whole_pictures=True)


@pytest.mark.parametrize("name", ["frcnn-vg", "frcnn-vg@10", "eight-views/frcnn-vg"])
def test_a_network_cannot_have_it_as_its_own(name):
    with pytest.raises(UserError, match=r"reads whole pictures, frozen: name it in data\.init_args\.encoder"):
        build_encoder(name, None)


# the published code, with made-up weights: see README.md in the folder of the data

PICTURES = ("000000018575", "000000011813")
WINNERS = sorted(
    (
        *(165, 101, 58, 62, 209, 223, 75, 133, 196, 252, 241, 263, 37, 179, 34, 171, 191, 290),
        *(36, 232, 197, 273, 278, 160, 189, 123, 22, 150, 6, 10, 298, 287, 288, 39, 83, 261),
    )
)
"""Places of the first picture's 36 boxes among its 300 proposals; the others take most of the time and win nothing."""


@pytest.fixture(scope="session")
def published(data_root):
    """What the published code gives, by name."""
    path = data_root / "frcnn_vg" / "expected.npz"
    if not path.is_file():
        pytest.skip(f"no real data: {path} is not there")
    with np.load(path) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture(scope="session")
def made_up(data_root, published):
    """The published architecture with the made-up weights."""
    spec = importlib.util.spec_from_file_location("made_up_weights", data_root / "frcnn_vg" / "weights.py")
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    encoder = GenomeEncoder().eval().requires_grad_(False)
    anchors = encoder.network.state_dict()["proposal_generator.anchor_generator.cell_anchors.0"]
    assert torch.allclose(anchors, published["cell_anchors"])
    state = {
        name: published["cell_anchors"] if value is anchors or "cell_anchors" in name
        else torch.from_numpy(np.asarray(weights.tensor(name, tuple(value.shape))))
        for name, value in encoder.network.state_dict().items()
    }  # fmt: skip
    encoder.network.load_state_dict(state)
    return encoder


def picture(data_root, name, encoder):
    """A picture as the encoder reads it, and its size before: height, width."""
    image = Image.open(data_root / "coco_mini" / "val2017" / f"{name}.jpg").convert("RGB")
    return scaled(torch.from_numpy(np.array(image)).permute(2, 0, 1), encoder.sides), (image.height, image.width)


def check_boxes(found, published, name, size, before):
    scale = torch.tensor([before[1] / size[1], before[0] / size[0]] * 2)
    assert (found.boxes * scale - published[f"{name}/boxes"]).abs().max() < 0.05
    assert (found.features - published[f"{name}/roi_features"]).abs().max() < 1e-3
    assert torch.equal(found.objects, published[f"{name}/obj_ids"])
    assert torch.allclose(found.scores, published[f"{name}/obj_probs"], atol=1e-4)


def test_names_and_shapes_are_those_of_the_published_checkpoint(data_root):
    lines = (data_root / "frcnn_vg" / "state_dict.txt").read_text().splitlines()
    with torch.device("meta"):
        state = GenomeNetwork(DetectorConfig()).state_dict()
    assert sorted(f"{name} {tuple(value.shape)}" for name, value in state.items()) == sorted(lines)


def test_proposals_and_boxes_are_those_of_the_published_code(data_root, published, made_up):
    """The heads see the winners among the proposals only; the slow test below lets them see all."""
    name, (pixels, before) = PICTURES[0], picture(data_root, PICTURES[0], made_up)
    size = tuple(pixels.shape[1:])
    assert list(size) == published[f"{name}/sizes"].view(-1).tolist()
    with torch.inference_mode():
        own = made_up._normalised(pixels).unsqueeze(0).contiguous(memory_format=torch.channels_last)
        features = made_up.network.backbone(own)
        assert (features.mean(dim=(2, 3))[0] - published[f"{name}/res4_mean"]).abs().max() < 1e-4
        (proposals,) = made_up.network.proposal_generator(features, size)
        assert (proposals - published[f"{name}/proposals"]).abs().max() < 0.05
        check_boxes(made_up._best(features, proposals[WINNERS], size), published, name, size, before)


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_pictures_give_the_boxes_of_the_published_code(data_root, published, made_up, name):
    pixels, before = picture(data_root, name, made_up)
    size = torch.tensor([pixels.shape[1:]])
    with torch.inference_mode():
        (found,) = made_up.detect(pixels.unsqueeze(0), size)
        attributes = made_up.network.roi_heads.box_predictor.attributes(found.features)
    check_boxes(found, published, name, pixels.shape[1:], before)
    best, kind = attributes.max(-1)
    assert torch.equal(kind, published[f"{name}/attr_ids"])
    assert torch.allclose(best, published[f"{name}/attr_probs"], atol=1e-4)
