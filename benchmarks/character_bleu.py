"""What the published BLEU over characters gives captions of other pictures, beside BLEU over words.

Command: python benchmarks/character_bleu.py $CAPTION_DATA/coco_eval/captions_val2017.json
"""

import argparse

from datamodules.readers.caption_files import read_records
from metrics.captions import score_captions
from metrics.character_bleu import character_bleu


def main() -> None:
    """Gives each of 500 pictures the first caption of the next one and prints both scores as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captions", help="COCO or Karpathy JSON")
    parser.add_argument("--images", type=int, default=500)
    options = parser.parse_args()
    records = [record for record in read_records(options.captions) if len(record.captions) > 1][: options.images]
    references = {str(record.image_id): list(record.captions)[:5] for record in records}
    names = list(references)
    strangers = {name: references[other][0] for name, other in zip(names, names[1:] + names[:1], strict=True)}
    characters, words = character_bleu(strangers, references), score_captions(strangers, references)
    print(f"captions of other pictures, {len(names)} pictures, five references each")
    print("| BLEU over | 1 | 2 | 3 | 4 |\n| --- | ---: | ---: | ---: | ---: |")
    rows = {
        "characters, as published": [characters[f"as_published/bleu{n}_char"] for n in range(1, 5)],
        "words": [words[f"bleu{n}"] for n in range(1, 5)],
    }
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |")


if __name__ == "__main__":
    main()
