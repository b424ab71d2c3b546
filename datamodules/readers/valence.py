"""From the emotions that people name to valence: positive, negative or mixed."""

from collections.abc import Iterable

VALENCES = ("positive", "negative", "mixed")

VALENCE_OF = {
    **dict.fromkeys(
        (
            "amazed",
            "awe",
            "beautiful",
            "calm",
            "excited",
            "good",
            "happy",
            "hopeful",
            "impressed",
            "inspired",
            "joy",
            "proud",
        ),
        "positive",
    ),
    **dict.fromkeys(
        ("anger", "angry", "annoyed", "bored", "concerned", "disgusted", "fear", "sad", "scared", "upset", "worried"),
        "negative",
    ),
    **dict.fromkeys(("confused", "curious", "interested", "intrigued", "neutral", "nostalgic"), "mixed"),
}
"""Valence of each label of Socratis; mixed: of both kinds or of none, such as nostalgia and curiosity."""


def valence(emotions: Iterable[str]) -> str:
    """What most of several emotions are, mixed ones left out; mixed where as many are positive as negative.

    >>> valence(["happy", "proud", "sad", "curious"]), valence(["happy", "sad"]), valence(["curious"])
    ('positive', 'mixed', 'mixed')
    """
    found = [VALENCE_OF[name] for name in emotions]
    more = found.count("positive") - found.count("negative")
    return "mixed" if more == 0 else "positive" if more > 0 else "negative"
