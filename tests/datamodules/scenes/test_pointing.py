"""The pointing game and the entropy of attention, against counting by hand."""

import math

import pytest
import torch

from datamodules.scenes.generator import CANVAS, Scene, SceneObject, make_scene
from datamodules.scenes.grammar import grounded_captions
from datamodules.scenes.pointing import cells_on, named_places, normalised_entropy, pointing_credit

CPU = torch.device("cpu")
LEFT = SceneObject(shape="circle", colour="red", size="small", x=48, y=48, radius=22)
RIGHT = SceneObject(shape="square", colour="blue", size="large", x=208, y=208, radius=34)


def test_cells_are_those_with_their_centre_in_the_box():
    # cells of 32 units have their centres at 16, 48, 80 ...; the box goes from 26 to 70, with tolerance from -6 to 102
    plain, tolerant = (cells_on([LEFT], (8, 8), tolerance).view(8, 8) for tolerance in (0.0, 1.0))
    assert plain.nonzero().tolist() == [[1, 1]]
    assert tolerant.nonzero().tolist() == [[row, column] for row in range(3) for column in range(3)]
    assert cells_on([LEFT, RIGHT], (8, 8), 0.0).sum() == 1 + 9


def test_a_box_between_centres_marks_its_own_cell():
    tiny = SceneObject(shape="circle", colour="red", size="small", x=100, y=30, radius=2)
    assert cells_on([tiny], (2, 2), 0.0).nonzero().flatten().tolist() == [0]
    edge = SceneObject(shape="circle", colour="red", size="small", x=CANVAS, y=CANVAS, radius=2)
    assert cells_on([edge], (2, 2), 0.0).nonzero().flatten().tolist() == [3]


def test_places_are_the_words_of_the_grammar():
    scene = make_scene("val", 3)
    captions = grounded_captions(scene)
    places = named_places([scene.to_json()], [0] * len(captions), [text for text, _ in captions], (8, 8), CPU)
    expected = {
        (number, word)
        for number, (_, groundings) in enumerate(captions)
        for start, end, _ in groundings
        for word in range(start, end)
    }
    assert {tuple(pair) for pair in torch.stack([places.caption, places.step], 1).tolist()} == expected
    nouns = {(number, end - 1) for number, (_, groundings) in enumerate(captions) for _, end, _ in groundings}
    rows = torch.stack([places.caption, places.step], 1)[places.noun]
    assert {tuple(pair) for pair in rows.tolist()} == nouns
    assert 0 < len(nouns) < len(expected)
    for number, word, hit in zip(places.caption.tolist(), places.step.tolist(), places.hit, strict=True):
        members = [m for start, end, m in captions[number][1] if start <= word < end]
        assert torch.equal(hit, cells_on([scene.objects[m] for m in members], (8, 8), 1.0))
    assert (places.inside & ~places.hit).sum() == 0


def test_foreign_captions_have_no_places():
    scene = Scene((LEFT, RIGHT), 1).to_json()
    places = named_places([scene], [0], ["a dog"], (4, 4), CPU)
    assert places.hit.shape == (0, 16)
    assert len(pointing_credit(torch.zeros(0, 16), places.hit)) == 0


def test_uniform_attention_gets_the_expected_area():
    hit = torch.zeros(1, 20, dtype=torch.bool)
    hit[0, :7] = True
    assert pointing_credit(torch.full((1, 20), 1 / 20), hit).item() == pytest.approx(7 / 20)


def test_a_peak_gets_all_or_nothing():
    hit = torch.tensor([[True, False, False]]).expand(2, 3)
    assert pointing_credit(torch.tensor([[0.5, 0.3, 0.2], [0.3, 0.5, 0.2]]), hit).tolist() == [1.0, 0.0]


def test_entropy():
    weights = torch.tensor([[0.5, 0.25, 0.25, 0.0]])
    assert normalised_entropy(weights).item() == pytest.approx(1.5 * math.log(2) / math.log(4))
    assert normalised_entropy(torch.full((2, 9), 1 / 9)).tolist() == pytest.approx([1.0, 1.0])
    assert normalised_entropy(torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([2])).item() == pytest.approx(1.0)
    assert normalised_entropy(torch.ones(1, 1)).item() == 0.0
