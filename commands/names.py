"""The commands of ``python cli.py``: name and one line of help each. Importing this imports nothing else."""

TRAINER_COMMANDS = {
    "fit": "train, with --config experiments/NAME.yaml",
    "validate": "score a checkpoint on the validation split, greedily",
    "test": "score a checkpoint on the test split, with the configured beams",
    "predict": "write captions as COCO results JSON",
}
"""Commands of Lightning's command line, all run by `commands.trainer.train`."""
COMMANDS = {
    "resume": "continue an interrupted run exactly: resume RUN",
    "caption": "caption images: caption --ckpt RUN image.jpg folder/",
    "label": "label images: label --ckpt RUN image.jpg [--text CAPTION]",
    "tag": "caption images for training: tag --ckpt RUN folder/ --out FOLDER",
    "merge": "one table of the parts that caption, label or tag --out wrote: merge FOLDER --out FILE",
    "sweep": "search over settings: sweep experiments/sweeps/NAME.yaml",
    "export": "a model as a folder to pass on: export RUN --out FOLDER",
    "demo": "a page to try models on images: demo --ckpt RUN RUN ...",
    "serve": "models behind an HTTP API: serve --ckpt RUN",
    "score": "score captions: score predictions.json references.json",
    "report": "one page about a run: report RUN",
    "compare": "runs side by side: compare RUN RUN ...",
    "recipe": "run the stages of an experiment, skipping what is up to date: recipe FILE",
    "data": "prepare or check a data set, compute its features: data check NAME --root DIR",
}
"""Commands of our own, each run by the module of its name in `commands`."""
