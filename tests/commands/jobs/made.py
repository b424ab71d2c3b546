"""Tiny models for jobs, calling jobs, and looking at what they have written."""

from dataclasses import asdict

import pyarrow.parquet as pq
import torch

import cli
from datamodules.scenes import SceneCaptions
from lightning_modules import AttentionRNN, MultiLabel

SMALL = {"image_encoder": "small-conv", "region_dim": 8, "hidden_dim": 8, "word_dim": 8, "attention_dim": 8}


def small_scenes():
    return SceneCaptions(num_train=8, num_val=2, num_test=23, max_tokens=8)


def make_runs(folder):
    """Writes checkpoints of models that were never trained; their captions are long and differ."""
    scenes = small_scenes()
    torch.manual_seed(0)
    modules = {
        "captioner": AttentionRNN.for_data(scenes, **SMALL, beams=2),
        "other": AttentionRNN.for_data(scenes, **SMALL, beams=2),
        "classifier": MultiLabel(image_encoder="small-conv", hidden_dims=[8], num_labels=24),
    }
    for name, module in modules.items():
        module.inference = {"method": module.method, **scenes.describe()}
        if name != "classifier":
            module.inference["decoding"] = asdict(module.decoding("test"))
        checkpoint = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
        module.on_save_checkpoint(checkpoint)
        torch.save(checkpoint, folder / f"{name}.ckpt")
    return folder


def job(command, runs, source, out, *words):
    """Calls a command with small parts and batches, in this process."""
    run = runs / ("classifier.ckpt" if command == "label" else "captioner.ckpt")
    sources = source if isinstance(source, list) else [source]
    sizes = ["--rows-per-part=4", "--batch-size=3", "--workers=0"]
    return cli.main([command, "--ckpt", str(run), *map(str, sources), "--out", str(out), *sizes, *map(str, words)])


def merged(*folders, to):
    assert cli.main(["merge", *map(str, folders), "--out", str(to)]) == 0
    return to.read_bytes()


def rows(path):
    return pq.read_table(path).to_pylist()


def parts(folder):
    """Contents of all files of a job's folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
