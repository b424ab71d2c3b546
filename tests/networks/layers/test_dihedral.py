"""The eight symmetries of the square."""

import pytest
import torch

from networks.layers.dihedral import NUM_DIHEDRAL, dihedral, inverse_dihedral, random_dihedral


def test_there_are_eight_different_transforms():
    image = torch.arange(9.0).view(1, 3, 3)
    transformed = [dihedral(image, index) for index in range(NUM_DIHEDRAL)]
    assert len({tuple(item.flatten().tolist()) for item in transformed}) == 8
    assert torch.equal(transformed[0], image)
    assert torch.equal(transformed[4], image.flip(-1))


@pytest.mark.parametrize("index", range(NUM_DIHEDRAL))
def test_transforms_are_quarter_turns_then_a_flip(index):
    image = torch.randn(2, 3, 5, 7)
    turned = torch.rot90(image, index % 4, (-2, -1))
    assert torch.equal(dihedral(image, index), turned.flip(-1) if index >= 4 else turned)


def test_the_inverse_undoes_a_transform():
    image = torch.randn(2, 3, 5, 7)
    transformed = [dihedral(image, index) for index in range(NUM_DIHEDRAL)]
    assert len({tuple(item.flatten().tolist()) for item in transformed}) == 8
    for index, item in enumerate(transformed):
        assert torch.equal(inverse_dihedral(item, index), image)


def test_random_transforms_are_repeatable_and_drawn_for_each_image():
    images = torch.randn(40, 3, 4, 4)
    torch.manual_seed(3)
    drawn = random_dihedral(images)
    torch.manual_seed(3)
    assert torch.equal(drawn, random_dihedral(images))
    known = torch.stack([dihedral(images, index) for index in range(NUM_DIHEDRAL)])
    found = [
        [torch.equal(drawn[row], known[index, row]) for index in range(NUM_DIHEDRAL)].index(True) for row in range(40)
    ]
    assert len(set(found)) == NUM_DIHEDRAL
