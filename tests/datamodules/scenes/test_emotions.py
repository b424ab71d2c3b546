"""The emotion model is a distribution that the samples follow."""

import numpy as np

from datamodules.scenes.emotions import EMOTION_NAMES, emotion_labels, emotion_probabilities, sample_emotions
from datamodules.scenes.generator import Scene, SceneObject, make_scene

SCENES = [make_scene("train", index) for index in range(300)]


def test_probabilities():
    table = np.array([emotion_probabilities(scene) for scene in SCENES])
    assert table.shape == (300, len(EMOTION_NAMES))
    assert len(EMOTION_NAMES) >= 8
    assert np.allclose(table.sum(axis=1), 1)
    assert table.min() > 0
    # worth learning: the scene says much more than the prior, and every emotion is somebody's most likely one
    entropy = -(table * np.log(table)).sum(axis=1).mean()
    prior = table.mean(axis=0)
    assert -(prior * np.log(prior)).sum() - entropy > 0.3
    assert set(table.argmax(axis=1)) == set(range(8))


def test_a_scene_by_hand():
    scene = Scene((SceneObject(shape="circle", colour="blue", size="small", x=43, y=43, radius=22),), 0)
    # blue + circle, 2 objects fewer than 3, none large
    scores = np.array([1.5 - 0.8, 1.0, 2.0 + 1.5 + 0.8, -1.0, 0.0, 0.0, 0.0, 3.0 + 0.8])
    assert np.allclose(emotion_probabilities(scene), np.exp(scores) / np.exp(scores).sum())


def test_samples_follow_the_distribution():
    scene = SCENES[0]
    reported = np.bincount(sample_emotions(scene, 20000), minlength=8) / 20000
    assert np.abs(reported - emotion_probabilities(scene)).max() < 0.015
    assert sample_emotions(scene, 7)[:5] == sample_emotions(scene)


def test_labels_hold_what_somebody_reports():
    for scene in SCENES[:50]:
        on = {index for index, value in enumerate(emotion_labels(scene, 4)) if value}
        assert on == set(sample_emotions(scene, 4))
