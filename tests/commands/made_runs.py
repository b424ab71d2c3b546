"""What runs leave in their folders, made without training."""

import json
from pathlib import Path

from PIL import Image

NASTY = "<script>alert('x')</script> & a \"red\" picture"
COLOURS = ("red", "green", "blue", "white")


def make_data(root, tested=8):
    """Pictures with two captions each, four of them to train on."""
    (root / "images").mkdir(parents=True)
    rows = ["image,caption,split"]
    for number in range(tested + 4):
        colour = COLOURS[number % 4]
        Image.new("RGB", (300, 200), colour).save(root / "images" / f"{number:02d}.png")
        split = "test" if number < tested else "train"
        rows += [f"{number:02d}.png,a {colour} picture,{split}", f"{number:02d}.png,all of it is {colour},{split}"]
    (root / "captions.csv").write_text("\n".join(rows) + "\n")
    return root


def make_run(root, name, say, seed=0, settings=None, score=0.5, **data_settings):
    """What fit and test leave: configuration, curves, figures and predictions."""
    run = Path("runs") / name
    (run / "eval" / "test").mkdir(parents=True)
    init = {"root": str(root), "image_size": 32, "num_workers": 0, **data_settings}
    config = {
        "seed_everything": seed,
        "model": {"class_path": "lightning_modules.DualTransfer", "init_args": settings or {}},
        "data": {"class_path": "datamodules.folder_captions.FolderCaptions", "init_args": init},
    }
    (run / "config.yaml").write_text(json.dumps(config))
    lines = [f"{step},{3 / (1 + step)},{step / 100}," for step in range(0, 100, 10)] + ["100,,,2.5"]
    (run / "metrics.csv").write_text("step,train/loss,val/cider_d,val/loss\n" + "\n".join(lines) + "\n")
    own = {"cider_d": score, "bleu4": score / 2, "loss": 1.5}
    rows = {"constant caption": {"cider_d": 0.2, "bleu4": 0.1}, "human against the others": {"cider_d": 2.0}}
    (run / "eval" / "test" / "metrics.json").write_text(json.dumps({"this model": own, **rows}))
    rows = [{"image_id": f"{number:02d}.png", "caption": say(number)} for number in range(8)]
    (run / "eval" / "test" / "predictions.json").write_text(json.dumps(rows))
    return str(run)


def right(number):
    return f"a {COLOURS[number % 4]} picture"


def wrong(number):
    return NASTY if number == 3 else right(number + number % 2)
