"""Captions that say how a scene feels: no fact changes, who feels what is known, words name one emotion."""

from collections import defaultdict

import pytest
import torch

from datamodules.scenes import SceneCaptions
from datamodules.scenes.draws import Draws
from datamodules.scenes.emotions import EMOTION_NAMES, sample_emotions
from datamodules.scenes.facts import caption_fact_f1, check_caption
from datamodules.scenes.feelings import FEELING_WORDS, feeling_captions, fresh_feeling_caption, with_feeling
from datamodules.scenes.generator import Scene, make_scene
from datamodules.scenes.grammar import GRAMMAR_WORDS, scene_captions

SCENES = [make_scene("train", index, 2, max_groups=3, max_objects=5) for index in range(150)]


@pytest.fixture(scope="module")
def data():
    return SceneCaptions(num_train=40, num_val=12, num_test=6, batch_size=4, feelings=True, captions_per_image=2)


def test_a_feeling_changes_no_fact():
    for number, scene in enumerate(SCENES):
        for text in scene_captions(scene):
            expected = check_caption(text, scene)
            for emotion in range(len(EMOTION_NAMES)):
                felt = with_feeling(text, emotion, Draws(number, emotion))
                assert check_caption(felt, scene) == expected, felt


def test_captions_are_sentences_of_known_words_that_say_what_annotators_feel():
    said = defaultdict(set)
    for scene in SCENES:
        captions, emotions = feeling_captions(scene)
        assert emotions == sample_emotions(scene, 5)
        assert feeling_captions(Scene.from_json(scene.to_json())) == (captions, emotions)
        for text, plain, emotion in zip(captions, scene_captions(scene), emotions, strict=True):
            assert text[0].isupper()
            assert text.endswith(".")
            words = text.lower().rstrip(".").replace(",", "").split()
            assert set(words) <= GRAMMAR_WORDS | FEELING_WORDS, text
            kept = plain.lower().rstrip(".").split()
            assert any(words[start : start + len(kept)] == kept for start in range(len(words)))
            said[emotion].add(frozenset(set(words) - GRAMMAR_WORDS))
    assert len(said) == len(EMOTION_NAMES)
    assert all(len(phrases) >= 6 for phrases in said.values())


def test_every_word_of_feeling_but_those_of_the_phrases_names_one_emotion():
    named = defaultdict(set)
    for emotion in range(len(EMOTION_NAMES)):
        for number in range(300):
            for word in with_feeling("X.", emotion, Draws(number)).lower().replace(",", "").replace(".", "").split():
                named[word].add(emotion)
    shared = {word for word, emotions in named.items() if len(emotions) > 1}
    assert shared == {"x", "how", "a", "an", "feeling", "of", "which", "feels", "scene", "full"}
    assert set(named) - {"x"} == FEELING_WORDS


def test_fresh_captions_are_true():
    assert all(
        caption_fact_f1(fresh_feeling_caption(scene, sample), scene) == 1 for scene in SCENES for sample in (0, 3)
    )


def test_batches_bring_the_label_of_each_caption(data):
    assert data.condition_names == EMOTION_NAMES
    assert data.describe()["condition_names"] == list(EMOTION_NAMES)
    labels = {text: example.conditions for example in data.examples("train") for text in example.captions}
    batch = next(iter(data.train_dataloader()))
    assert batch["condition"].shape == batch["image_index"].shape == (8,)
    for ids, label in zip(batch["caption_ids"], batch["condition"].tolist(), strict=True):
        written = data.tokenizer.decode(ids.tolist())
        found = [
            example.conditions[place]
            for example in data.examples("train")
            for place, text in enumerate(example.captions)
            if data.tokenizer.decode(data.tokenizer.encode(text)) == written
        ]
        assert label in found
    assert len(labels) > 100
    rows = data.baselines("test")
    assert rows["upper bound"]["fact_f1"] == 1.0


def test_without_feelings_there_are_no_labels_and_captions_are_those_of_before():
    plain = SceneCaptions(num_train=4, num_val=3, batch_size=2)
    assert plain.condition_names == ()
    assert "condition" not in next(iter(plain.val_dataloader()))
    example = plain.examples("val")[0]
    assert list(example.captions) == scene_captions(Scene.from_json(example.image_name))
    assert torch.equal(*(next(iter(plain.train_dataloader()))["caption_ids"] for _ in range(2)))
