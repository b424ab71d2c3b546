import pytest
import torch
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.ops import box_iou

from core.errors import UserError
from networks.encoders.build import build_encoder
from networks.encoders.detectors import BoxEncoder, _best

NAME = "torchvision/fasterrcnn_mobilenet_v3_large_320_fpn"


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return build_encoder(NAME, None).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def image():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_boxes_come_with_a_mask_and_absent_ones_are_zero(encoder, image):
    features, mask = encoder.regions(image)
    assert features.shape == (2, 36, 1024) == (2, encoder.boxes, encoder.grid_dim)
    assert mask.dtype == torch.bool
    assert mask.any(1).all()
    assert (features[~mask] == 0).all()
    assert (mask.int().diff(dim=1) <= 0).all(), "the real ones come first"
    assert torch.equal(encoder.grid(image), features)
    mean = torch.stack([row[own].mean(0) for row, own in zip(features, mask, strict=True)])
    assert torch.allclose(encoder.vector(image), mean, atol=1e-5)
    assert encoder.grid_shape(64) == (1, 36)


def test_an_image_gives_the_same_boxes_alone_and_in_a_batch(encoder, image):
    features, mask = encoder.regions(image)
    alone, own = encoder.regions(image[1:])
    assert torch.equal(own[0], mask[1])
    assert torch.allclose(alone[0], features[1], atol=1e-4)


def test_features_are_those_of_the_box_head_of_torchvisions_own_forward(encoder, image):
    """The detector's forward pass, its resizing and normalisation switched off, sees the same rows."""
    network = encoder.network
    rows = []
    handle = network.roi_heads.box_head.register_forward_hook(lambda *args: rows.append(args[2]))
    transform = network.transform
    kept = transform.image_mean, transform.image_std, transform.min_size, transform.max_size
    transform.image_mean, transform.image_std, transform.min_size, transform.max_size = [0.0] * 3, [1.0] * 3, (64,), 64
    network([image[0]])
    handle.remove()
    transform.image_mean, transform.image_std, transform.min_size, transform.max_size = kept
    features, mask = encoder.regions(image[:1])
    distance = torch.cdist(features[0, mask[0]], rows[0]).min(dim=1).values
    assert distance.max() < 1e-3


def test_the_best_boxes_are_kept_and_overlapping_ones_are_not():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [80, 0, 90, 10]])
    each = boxes.unsqueeze(1).expand(-1, 3, -1)
    scores = torch.tensor([[0.1, 0.6, 0.3], [0.1, 0.2, 0.7], [0.8, 0.15, 0.05], [0.9, 0.05, 0.05]])
    assert box_iou(boxes[:1], boxes[1:2]) > 0.5
    kept, found = _best(scores, each, 36)
    assert torch.equal(found, boxes[kept])
    assert kept.tolist() == [1, 2, 3]  # 0 overlaps with the better 1; background does not count
    assert _best(scores, each, 2)[0].tolist() == [1, 2]


def test_where_nothing_is_proposed_the_whole_picture_is_the_box(encoder, image, monkeypatch):
    empty = torch.zeros(0, 4)
    monkeypatch.setattr(encoder.network.rpn, "forward", lambda images, maps: ([empty, empty], {}))
    _, mask = encoder.regions(image)
    assert mask.sum(1).tolist() == [1, 1]


def test_weights_of_a_file_with_other_classes_and_another_number_of_boxes(tmp_path, image):
    torch.manual_seed(3)
    network = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=5)
    torch.save(network.state_dict(), tmp_path / "detector.pth")
    loaded = build_encoder(f"{NAME}@3", str(tmp_path / "detector.pth")).eval()
    direct = BoxEncoder(network=network.eval(), boxes=3)
    with torch.no_grad():
        assert torch.equal(loaded.regions(image)[0], direct.regions(image)[0])
    assert loaded.grid_shape(64) == (1, 3)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("torchvision/fasterrcnn_resnet9_fpn", None, "expected one of .*fasterrcnn_resnet50_fpn"),
        (f"{NAME}@0", None, "with @N appended"),
        (NAME, "visual-genome", 'neither "coco" nor an existing file'),
    ],
)
def test_what_is_wrong_is_named(name, weights, message):
    with pytest.raises(UserError, match=message):
        build_encoder(name, weights)
    with pytest.raises(UserError, match="no gradient checkpointing"):
        build_encoder(NAME, None, gradient_checkpointing=True)
