"""A captioning experiment small enough to run in seconds, and a callback that kills it."""

import json
import os
import signal
from pathlib import Path

import numpy as np
from lightning import Callback
from PIL import Image

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 40), "blue": (40, 60, 220), "white": (240, 240, 240)}


def make_folder(root: Path, count: int = 24) -> Path:
    """Plain coloured pictures with two captions each."""
    (root / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = ["image,caption,split"]
    for index in range(count):
        name, colour = list(COLOURS.items())[index % len(COLOURS)]
        pixels = np.clip(np.array(colour) + random.normal(0, 12, (40, 48, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{index:02d}.png")
        split = "val" if index >= count - 4 else "train"
        rows += [f"{index:02d}.png,a {name} picture,{split}", f"{index:02d}.png,the whole square is {name},{split}"]
    (root / "captions.csv").write_text("\n".join(rows) + "\n")
    return root


def make_config(path: Path, root: Path, workers: int = 0, accumulate: int = 1, epochs: int = 3) -> Path:
    """Writes an experiment on such a folder: dropout, random crops, random captions, every kind of randomness."""
    config = {
        "seed_everything": 7,
        "trainer": {
            "max_epochs": epochs,
            "accelerator": "cpu",
            "accumulate_grad_batches": accumulate,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "callbacks": ["tests.tiny.KillAfter"],
        },
        "model": {
            "class_path": "lightning_modules.DualTransfer",
            "init_args": {
                "image_encoder": "small-conv",
                "image_weights": None,
                "language_weights": None,
                "language_layers": 1,
                "language_heads": 2,
                "language_dim": 16,
                "dropout": 0.2,
                "lr": 0.01,
                "warmup_steps": 3,
                "schedule": "cosine",
                "beams": 2,
                "max_tokens": 12,
            },
        },
        "data": {
            "class_path": "datamodules.folder_captions.FolderCaptions",
            "init_args": {
                "root": str(root),
                "batch_size": 3,
                "captions_per_image": 1,
                "num_workers": workers,
                "image_size": 32,
                "augment": True,
            },
        },
    }
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


class KillAfter(Callback):
    """Ends the process at once, as a power cut would, when KILL_AFTER says after how many training batches."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """Kills without a chance to clean up."""
        limit = os.environ.get("KILL_AFTER")
        if limit and trainer.fit_loop.epoch_loop.total_batch_idx + 1 >= int(limit):
            os.kill(os.getpid(), signal.SIGKILL)
