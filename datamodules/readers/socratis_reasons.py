"""Why people feel what they feel about the images of Socratis: the raw file's explanations, by image and emotion."""

from collections.abc import Iterable, Mapping, Sequence

from datamodules.readers.socratis_cleaning import Annotation, cleaned, lowered, without_placeholder

Reasons = dict[str, dict[str, tuple[str, ...]]]
"""Image to emotion to the reasons for it."""


def reasons_of(rows: Iterable[Annotation], labels: Sequence[str], synonyms: Mapping[str, str] | None = None) -> Reasons:
    """The reasons of all annotators, each once, in the order of the file; what has none is left out.

    Emotions are cleaned as in `datamodules.readers.socratis_cleaning`; others than the labels are left out. A reason
    that is the only one of its row is that of all the row's emotions: many annotators wrote one for all.

    Args:
        rows: the annotators' rows.
        labels: emotions that count, in the order in which they are wanted.
        synonyms: labels that are replaced by others.

    >>> emotions, reasons = ("Happy", "odd", "calm"), ("so nice", "", "")
    >>> row = Annotation(image_name="a.jpg", caption="x", emotions=emotions, reasons=reasons)
    >>> reasons_of([row], ["calm", "happy"])
    {'a.jpg': {'calm': ('so nice',), 'happy': ('so nice',)}}
    """
    found: dict[str, dict[str, dict[str, None]]] = {}
    for row in rows:
        given = [text for text in row.reasons if text]
        for place, emotion in enumerate(row.emotions):
            own = row.reasons[place] if place < len(row.reasons) else ""
            reason = given[0] if len(given) == 1 else own
            for typed in cleaned([without_placeholder(lowered(emotion))]):
                name = (synonyms or {}).get(typed, typed)
                if reason and name in labels:
                    found.setdefault(row.image_name, {}).setdefault(name, {})[reason] = None
    return {
        image: {name: tuple(by_emotion[name]) for name in labels if name in by_emotion}
        for image, by_emotion in found.items()
    }
