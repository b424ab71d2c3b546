import io
import pickle

import numpy as np
import PIL
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2

from core.errors import DataError, UserError
from datamodules.readers import images
from datamodules.readers.images import find_image, open_image, to_rgb
from datamodules.readers.transforms import ImageTransform


@pytest.fixture
def photo():
    """A smooth RGB picture, 64 x 48, that survives JPEG."""
    across, down = np.meshgrid(np.linspace(0, 255, 64), np.linspace(0, 255, 48))
    return Image.fromarray(np.stack([across, down, 255 - across], axis=-1).astype(np.uint8))


def close(image, other, tolerance=4):
    return np.abs(np.asarray(image, dtype=int) - np.asarray(other, dtype=int)).mean() < tolerance


YCBCR = pytest.param(
    "YCbCr",
    ".tif",
    marks=pytest.mark.skipif(
        int(PIL.__version__.split(".")[0]) < 13, reason="Pillow below 13 reads compressed YCbCr TIFF files only"
    ),
)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("RGB", ".png"), ("RGB", ".jpg"), ("CMYK", ".jpg"), ("CMYK", ".tif"), YCBCR, ("RGBA", ".webp")],
)
def test_every_colour_mode_reads_as_the_same_picture(tmp_path, photo, mode, suffix):
    path = tmp_path / f"photo{suffix}"
    photo.convert(mode).save(path, quality=95)
    read = open_image(path)
    assert read.mode == "RGB"
    assert read.size == photo.size
    assert close(read, photo)


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "PA"])
def test_grey_and_palette_pictures_read_as_rgb(tmp_path, photo, mode):
    photo.convert(mode if mode != "PA" else "P").convert(mode).save(
        tmp_path / "a.tif" if mode == "PA" else tmp_path / "a.png"
    )
    read = open_image(next(tmp_path.iterdir()))
    assert read.mode == "RGB"
    assert read.size == photo.size


def test_transparency_is_laid_on_white(tmp_path):
    picture = np.zeros((2, 2, 4), dtype=np.uint8)
    picture[0, 0] = (200, 0, 0, 255)
    picture[0, 1] = (200, 0, 0, 127)
    Image.fromarray(picture).save(tmp_path / "a.png")
    read = np.asarray(open_image(tmp_path / "a.png"))
    assert read[0, 0].tolist() == [200, 0, 0]
    assert np.abs(read[0, 1].astype(int) - [228, 128, 128]).max() <= 1
    assert read[1].tolist() == [[255] * 3] * 2
    # the same for a transparent palette entry and a transparent grey
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([10, 20, 30])
    palette.save(tmp_path / "p.png", transparency=0)
    assert open_image(tmp_path / "p.png").getpixel((0, 0)) == (255, 255, 255)
    Image.fromarray(np.array([[[0, 0]]], dtype=np.uint8), "LA").save(tmp_path / "la.png")
    assert open_image(tmp_path / "la.png").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path, suffix):
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep{suffix}")
    read = np.asarray(open_image(tmp_path / f"deep{suffix}"))
    assert read[0, :, 0].tolist() == [0, 1, 128, 255]


def test_float_pictures_are_scaled_or_refused():
    assert to_rgb(Image.fromarray(np.array([[0.0, 1.0]], dtype=np.float32))).getpixel((1, 0)) == (255, 255, 255)
    assert to_rgb(Image.fromarray(np.array([[0.0, 200.0]], dtype=np.float32))).getpixel((1, 0)) == (200, 200, 200)
    for bad in (np.nan, -1.0, 300.0):
        with pytest.raises(DataError, match="float values from"):
            to_rgb(Image.fromarray(np.array([[0.5, bad]], dtype=np.float32)))
    with pytest.raises(DataError, match="grey values from"):
        to_rgb(Image.fromarray(np.array([[70000]], dtype=np.int32)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_carried_out_as_pillow_does_it(tmp_path, photo, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo.save(tmp_path / "turned.png", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(tmp_path / "turned.png"))
    assert np.array_equal(open_image(tmp_path / "turned.png"), expected)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_does_not_hide_a_whole_picture(tmp_path, photo):
    photo.save(tmp_path / "a.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert open_image(tmp_path / "a.jpg").size == photo.size


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert open_image(tmp_path / "moving.gif").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".webp", ".tif", ".bmp"])
def test_a_picture_that_was_cut_off_names_the_file_and_the_ways_out(tmp_path, photo, suffix):
    photo.save(tmp_path / f"whole{suffix}")
    data = (tmp_path / f"whole{suffix}").read_bytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(
        DataError, match=r"cut\.\w+: image cannot be decoded \(.*correct the file.*on_bad_image=skip"
    ) as error:
        open_image(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\xff\xd8\xff\xe0garbage"])
def test_what_is_no_picture_is_a_data_error(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.jpg: image cannot be decoded"):
        open_image(tmp_path / "a.jpg")


def test_missing_file_folder_and_bytes(tmp_path, photo):
    with pytest.raises(DataError, match=r"absent\.jpg: no such image file"):
        open_image(tmp_path / "absent.jpg")
    with pytest.raises(DataError, match="cannot be read as a file"):
        open_image(tmp_path)
    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    assert np.array_equal(open_image(buffer.getvalue()), photo)
    with pytest.raises(DataError, match=r"row 7: image cannot be decoded"):
        open_image(b"nonsense", name="row 7")


def test_huge_pictures_are_refused_before_they_are_decoded(tmp_path, photo, monkeypatch):
    photo.save(tmp_path / "a.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(DataError, match=r"a\.png: image has more than"):
        open_image(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's own limit, twice of it raises
    with pytest.raises(DataError, match=r"a\.png: image has more than"):
        open_image(tmp_path / "a.png")


def test_reduced_decoding_keeps_the_shorter_side_and_the_picture(tmp_path, photo):
    large = photo.resize((1280, 960), Image.Resampling.BICUBIC)
    large.save(tmp_path / "a.jpg", quality=95)
    reduced = open_image(tmp_path / "a.jpg", min_side=200)
    assert min(reduced.size) == 240
    transform = ImageTransform(size=64, normalization="none")
    small = ImageTransform(size=64, normalization="none")(open_image(tmp_path / "a.jpg", min_side=transform.min_side))
    assert torch.allclose(small, transform(open_image(tmp_path / "a.jpg")), atol=0.02)


def test_a_read_picture_can_be_sent_to_another_process(tmp_path, photo):
    photo.save(tmp_path / "a.png")
    assert np.array_equal(pickle.loads(pickle.dumps(open_image(tmp_path / "a.png"))), photo)


def test_find_image_tries_the_name_and_then_other_endings(tmp_path):
    for name in ("1.jpg", "2.PNG", "photo.v2.jpg", "3.tif", "3.jpg"):
        (tmp_path / name).touch()
    assert find_image(tmp_path, "1.tif") == tmp_path / "1.jpg"
    assert find_image(tmp_path, "2.jpg") == tmp_path / "2.PNG"
    assert find_image(tmp_path, "3.tif") == tmp_path / "3.tif"
    assert find_image(tmp_path, "photo.v2") == tmp_path / "photo.v2.jpg"
    assert find_image(tmp_path, "1") == tmp_path / "1.jpg"
    assert find_image(tmp_path, "4.tif") is None
    assert find_image(tmp_path, "") is None


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (96, 96), (7, 5)])
def test_crop_is_the_usual_resize_and_centre_crop(size):
    # exact agreement is possible where the crop falls on whole pixels of the result
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    picture = picture.resize((size[0] * 4, size[1] * 4), Image.Resampling.BICUBIC)
    target = min(size)
    usual = v2.Compose(
        [v2.Resize(target, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(target), v2.PILToTensor()]
    )
    ours = ImageTransform(size=target, normalization="none")(picture)
    assert ours.shape == (3, target, target)
    if (max(size) - target) % 2 == 0:
        assert (ours * 255 - usual(picture)).abs().max() <= 1.5


def test_squash_keeps_all_of_the_picture(photo):
    ours = ImageTransform(size=32, normalization="none", resize="squash")(photo)
    usual = v2.PILToTensor()(photo.resize((32, 32), Image.Resampling.BICUBIC))
    assert torch.allclose(ours * 255, usual.float(), atol=1e-3)


@pytest.mark.parametrize(
    ("normalization", "black", "white"),
    [
        ("advprop", [-1, -1, -1], [1, 1, 1]),
        ("none", [0, 0, 0], [1, 1, 1]),
        ("imagenet", [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], [0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225]),
    ],
)
def test_normalisation_and_its_inverse(normalization, black, white):
    transform = ImageTransform(size=4, normalization=normalization)
    for colour, expected in (("black", black), ("white", white)):
        tensor = transform(Image.new("RGB", (9, 5), colour))
        assert torch.allclose(tensor[:, 0, 0], torch.tensor(expected, dtype=torch.float32), atol=1e-5)
        assert torch.allclose(transform.denormalize(tensor), torch.full((3, 4, 4), float(colour == "white")), atol=1e-5)


@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_augmentation_is_a_function_of_its_generator_alone(photo, resize):
    transform = ImageTransform(size=16, flip=True, resize=resize)
    torch.manual_seed(1)
    first = [transform.augment(photo, torch.Generator().manual_seed(seed)) for seed in range(8)]
    state = torch.get_rng_state()
    again = [transform.augment(photo, torch.Generator().manual_seed(seed)) for seed in range(8)]
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert len({tuple(tensor.flatten().tolist()) for tensor in first}) == 8


def test_augmentation_flips_only_when_asked(photo):
    # red grows to the right in the picture, so its slope tells whether it was mirrored
    def slopes(flip):
        transform = ImageTransform(size=16, normalization="none", flip=flip)
        tensors = [transform.augment(photo, torch.Generator().manual_seed(seed)) for seed in range(40)]
        return [(tensor[0, :, -1] - tensor[0, :, 0]).mean().item() > 0 for tensor in tensors]

    assert all(slopes(False))
    assert 8 < sum(slopes(True)) < 32


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (64, 48)])
def test_augmentation_never_leaves_the_picture(size):
    transform = ImageTransform(size=8, min_scale=0.3)
    for seed in range(50):
        assert transform.augment(Image.new("RGB", size), torch.Generator().manual_seed(seed)).isfinite().all()


def test_full_scale_without_tilt_range_keeps_most_of_the_picture(photo):
    transform = ImageTransform(size=16, normalization="none", min_scale=1.0)
    plain = transform(photo)
    augmented = transform.augment(photo, torch.Generator().manual_seed(0))
    assert (plain - augmented).abs().mean() < 0.15


def test_spec_brings_the_same_transform_back(photo):
    transform = ImageTransform(size=24, normalization="imagenet", resize="squash", interpolation="bilinear")
    again = ImageTransform.from_spec(transform.spec())
    assert again == transform
    assert torch.equal(again(photo), transform(photo))
    with pytest.raises(UserError, match="exactly the keys"):
        ImageTransform.from_spec({"size": 3})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "at least 1 pixel"),
        ({"size": 8, "normalization": "vgg"}, "normalization='vgg' is unknown; choose one of advprop, imagenet"),
        ({"size": 8, "resize": "pad"}, "resize='pad' is unknown"),
        ({"size": 8, "interpolation": "cubic"}, "interpolation='cubic' is unknown"),
        ({"size": 8, "min_scale": 0.0}, "min_scale=0.0"),
    ],
)
def test_wrong_values_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        ImageTransform(**arguments)


def test_a_cut_picture_is_noticed_at_reduced_scale_too(tmp_path, photo):
    photo.resize((1280, 960), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg", quality=95)
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) * 9 // 10])
    with pytest.raises(DataError, match=r"a\.jpg: image cannot be decoded \(.*truncated"):
        open_image(tmp_path / "a.jpg", min_side=100)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_reduced_scale_keeps_the_colours_of_other_modes(tmp_path, photo, mode):
    photo.resize((1280, 960), Image.Resampling.BICUBIC).convert(mode).save(tmp_path / "a.jpg", quality=95)
    reduced = open_image(tmp_path / "a.jpg", min_side=100)
    assert reduced.size == (160, 120)
    assert close(reduced, open_image(tmp_path / "a.jpg").resize((160, 120)))


def test_real_pictures_at_reduced_scale_give_nearly_the_same_tensor(data_root):
    transform = ImageTransform(size=64, normalization="none")
    for path in sorted((data_root / "coco_mini" / "val2017").glob("*.jpg"))[:8]:
        reduced = transform(open_image(path, min_side=transform.min_side))
        # the decoder rounds odd sizes up, which moves edges by a fraction of a pixel
        assert (reduced - transform(open_image(path))).abs().mean() < 0.02
