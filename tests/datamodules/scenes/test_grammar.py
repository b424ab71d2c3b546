"""Laws of the captions: true, different, complete, and their words point at the right objects."""

from datamodules.scenes.facts import check_caption, parse_caption
from datamodules.scenes.generator import SPLITS, Scene, SceneObject, make_scene
from datamodules.scenes.grammar import GRAMMAR_WORDS, PLURALS, fresh_caption, grounded_captions, scene_captions

SCENES = [make_scene(split, index, 1, max_groups=3, max_objects=5) for split in SPLITS for index in range(150)]


def test_every_caption_is_wholly_true_and_names_every_object():
    for scene in SCENES:
        for caption in scene_captions(scene):
            counts = check_caption(caption, scene)
            assert (counts.precision, counts.recall) == (1.0, 1.0), (caption, scene)
            assert counts.stated >= 5


def test_five_different_captions_that_depend_on_the_scene_alone():
    for scene in SCENES[:50]:
        captions = scene_captions(scene)
        assert len(set(captions)) == 5
        assert captions == scene_captions(Scene.from_json(scene.to_json()))
        assert captions == [text for text, _ in grounded_captions(scene)]
        assert scene_captions(scene, 3) == captions[:3]


def test_vocabulary_and_length():
    words = [caption.lower().rstrip(".").split() for scene in SCENES for caption in scene_captions(scene)]
    assert {word for caption in words for word in caption} == GRAMMAR_WORDS
    assert 40 <= len(GRAMMAR_WORDS) <= 80
    lengths = [len(caption) for caption in words]
    assert min(lengths) >= 7
    assert max(lengths) <= 24


def test_captions_look_like_sentences():
    for scene in SCENES[:50]:
        for caption in scene_captions(scene):
            assert caption[0].isupper()
            assert caption.endswith(".")
            assert caption[1:] == caption[1:].lower()


def test_all_relations_and_sizes_are_told():
    statements = [parse_caption(caption) for scene in SCENES for caption in scene_captions(scene)]
    assert {name for statement in statements for _, name, _ in statement.relations} == {
        "left",
        "right",
        "above",
        "below",
    }
    assert any(statement.between for statement in statements)
    sized = sum(any(mention.sizes for mention in statement.mentions) for statement in statements)
    assert 0.3 < sized / len(statements) < 0.7


def test_groundings_point_at_the_objects_they_name():
    for scene in SCENES[:100]:
        for caption, grounding in grounded_captions(scene):
            words = caption.lower().rstrip(".").split()
            assert sorted(index for *_, index in grounding) == list(range(len(scene.objects)))
            for start, end, index in grounding:
                item = scene.objects[index]
                assert item.colour in words[start:end]
                assert words[end - 1] in (item.shape, PLURALS[item.shape])
                assert not {"and", "with", "of", "is", "are"} & set(words[start:end])


def test_fresh_captions_are_true_and_not_the_references():
    fresh = [fresh_caption(scene) for scene in SCENES]
    assert all(check_caption(text, scene).f1 == 1.0 for text, scene in zip(fresh, SCENES, strict=True))
    copies = sum(text in scene_captions(scene) for text, scene in zip(fresh, SCENES, strict=True))
    assert copies < 0.35 * len(SCENES)
    assert fresh_caption(SCENES[0], 1) == fresh_caption(SCENES[0], 1)
    assert len({fresh_caption(SCENES[0], speaker) for speaker in range(10)}) > 1


def test_a_scene_with_one_object_has_captions_too():
    scene = Scene((SceneObject(shape="circle", colour="red", size="small", x=100, y=100, radius=20),), 0)
    assert all(check_caption(caption, scene).f1 == 1.0 for caption in scene_captions(scene))
