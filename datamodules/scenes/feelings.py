"""Captions that say how a scene feels: a grammar around the captions of `datamodules.scenes.grammar`.

A feeling is said in a phrase before or behind the caption, never inside of it, so that a caption states the same facts
with and without it. What people feel is decided by `datamodules.scenes.emotions`.
"""

from collections.abc import Sequence

from datamodules.scenes.draws import Draws
from datamodules.scenes.emotions import EMOTION_NAMES, sample_emotions
from datamodules.scenes.generator import Scene
from datamodules.scenes.grammar import fresh_caption, scene_captions

_ADJECTIVES: dict[str, tuple[str, ...]] = {
    "amusement": ("funny", "amusing", "playful"),
    "awe": ("majestic", "grand", "awesome"),
    "contentment": ("peaceful", "calm", "pleasant"),
    "excitement": ("exciting", "thrilling", "lively"),
    "anger": ("furious", "angry", "hostile"),
    "disgust": ("disgusting", "revolting", "nasty"),
    "fear": ("scary", "frightening", "threatening"),
    "sadness": ("sad", "gloomy", "lonely"),
}
_NOUNS: dict[str, tuple[str, ...]] = {
    "amusement": ("amusement", "fun"),
    "awe": ("awe", "wonder"),
    "contentment": ("contentment", "peace"),
    "excitement": ("excitement", "energy"),
    "anger": ("anger", "rage"),
    "disgust": ("disgust", "revulsion"),
    "fear": ("fear", "dread"),
    "sadness": ("sadness", "sorrow"),
}
_ADJECTIVE, _ADJECTIVE_WITH_ARTICLE, _NOUN = "{adjective}", "{an_adjective}", "{noun}"
_BEFORE = (f"how {_ADJECTIVE},", f"a feeling of {_NOUN},")
_BEHIND = (f"which feels {_ADJECTIVE}", f", {_ADJECTIVE_WITH_ARTICLE} scene", f", full of {_NOUN}")

FEELING_WORDS: frozenset[str] = frozenset(
    word.strip(",")
    for phrase in (
        *_BEFORE,
        *_BEHIND,
        "an",
        *(one for kind in (_ADJECTIVES, _NOUNS) for own in kind.values() for one in own),
    )
    for word in phrase.split()
    if word.strip(",") and not word.startswith("{")
)
"""Every word that a phrase of feeling can hold."""


def with_feeling(caption: str, emotion: int, draws: Draws) -> str:
    """A caption with a phrase that says how its scene feels.

    Args:
        caption: caption of the scenes' grammar.
        emotion: index into `EMOTION_NAMES`.
        draws: choose the phrase.

    >>> with_feeling("A red circle above a blue square.", 7, Draws(3))
    'A red circle above a blue square, full of sadness.'
    """
    name = EMOTION_NAMES[emotion]
    adjective, noun = draws.choose(_ADJECTIVES[name]), draws.choose(_NOUNS[name])
    article = "an" if adjective[0] in "aeiou" else "a"
    words = {"adjective": adjective, "an_adjective": f"{article} {adjective}", "noun": noun}
    phrase = draws.choose((*_BEFORE, *_BEHIND))
    said, body = phrase.format(**words), caption.removesuffix(".")
    if phrase in _BEFORE:
        text = f"{said} {body[0].lower()}{body[1:]}"
        return f"{text[0].upper()}{text[1:]}."
    return f"{body}{said}." if said.startswith(",") else f"{body} {said}."


def feeling_captions(scene: Scene) -> tuple[list[str], tuple[int, ...]]:
    """The captions of a scene, each with what another person reports to feel.

    Returns:
        Captions, and the emotion of each, an index into `EMOTION_NAMES`. Without their feelings they are those of
        `scene_captions`, in order.
    """
    captions = scene_captions(scene)
    emotions = sample_emotions(scene, len(captions))
    return _felt(scene, captions, emotions, 0), emotions


def fresh_feeling_caption(scene: Scene, sample: int = 0) -> str:
    """As `datamodules.scenes.grammar.fresh_caption`, of a speaker who reports an emotion of their own."""
    emotion = sample_emotions(scene, 6 + sample)[-1]  # the first five are those of the scene's captions
    return _felt(scene, [fresh_caption(scene, sample)], [emotion], 1 + sample)[0]


def _felt(scene: Scene, captions: Sequence[str], emotions: Sequence[int], speaker: int) -> list[str]:
    draws = Draws(scene.digest(), 4, speaker)
    return [with_feeling(text, emotion, draws) for text, emotion in zip(captions, emotions, strict=True)]
