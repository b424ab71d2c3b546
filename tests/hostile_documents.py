"""Intact files of every format that is text."""

CAPTIONS = ["a red dog runs", "two dogs and a cat", "the sea"]
PICTURES = ["a.png", "b.png", "c.png"]
COCO = {
    "images": [{"id": place, "file_name": name} for place, name in enumerate(PICTURES)],
    "annotations": [{"id": 9 - place, "image_id": place, "caption": CAPTIONS[place]} for place in range(3)],
}
KARPATHY = {
    "dataset": "ucm",
    "images": [
        {
            "filename": name,
            "filepath": "",
            "imgid": place,
            "split": ("train", "val", "test")[place],
            "sentids": [place],
            "sentences": [{"raw": CAPTIONS[place], "tokens": CAPTIONS[place].split(), "sentid": place, "imgid": place}],
        }
        for place, name in enumerate(PICTURES)
    ],
}
LINES = [{"image": name, "caption": CAPTIONS[place]} for place, name in enumerate(PICTURES)]
LABELS = [{"id": n, "caption": CAPTIONS[n], "labels": ["sad", "calm"][: n + 1], "split": s}
          for n, s in enumerate(("train", "val", "test"))]  # fmt: skip
SOCRATIS = {f"id{n}": [[f"{n}.png", CAPTIONS[n % 3], ["sad", "calm", ""], ["", "", ""], {}]] for n in range(12)}
STAGE = {
    "status": "done", "mark": "m", "command": "python cli.py test", "started": "now", "seconds": 3.0,
    "fingerprint": {"words": ["test"], "files": {"a": "b"}, "stages": {"c": "d"}},
}  # fmt: skip
RECIPE = {
    "about": "x", "vars": {"seed": 1},
    "stages": {"a": {"command": "fit --config x.yaml --seed ${seed}"}, "b": {"command": ["test", "${a.run}"]}},
    "summary": {"rows": ["b"], "metrics": ["bleu4"], "compare": [["a", "b"]]},
}  # fmt: skip
CONFIG = {
    "seed_everything": 1, "trainer": {"max_epochs": 1},
    "model": {"class_path": "lightning_modules.AttentionRNN", "init_args": {"lr": 0.1}},
    "data": {"class_path": "datamodules.scenes.SceneCaptions", "init_args": {"num_train": 2}},
}  # fmt: skip
TOKENS = "".join(f"{name}#0\t{CAPTIONS[place]}\n" for place, name in enumerate(PICTURES))
LISTS = ("Flickr_8k.trainImages.txt", "Flickr_8k.devImages.txt", "Flickr_8k.testImages.txt")
RUN = {"command": "cli.py fit", "threads": 1, "wandb_id": "x", "job": None}
METRICS = {"this model": {"bleu4": 0.5, "cider_d": 1.0}, "constant caption": {"bleu4": 0.1}}
PREDICTED = [{"image_id": n, "caption": CAPTIONS[n]} for n in range(3)]
ROWS = "step,epoch,loss\n1,0,2.5\n2,0,\n3,1,2.25\n"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog", "runs"]
TABLE = "image,caption\n" + "".join(f"{name},{CAPTIONS[place]}\n" for place, name in enumerate(PICTURES))
SWEEP = {
    "program": "cli.py", "command": ["${program}", "fit", "--config", "x.yaml", "${args}"], "method": "bayes",
    "metric": {"name": "val/loss", "goal": "minimize"}, "run_cap": 4,
    "early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 3},
    "parameters": {"lr": {"min": 0.1, "max": 1.0}, "n": {"values": [1, 2]}, "m": {"value": "x"}},
}  # fmt: skip
