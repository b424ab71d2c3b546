"""Every way by which a file enters, each with an intact file made by code."""

import base64
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel

from callbacks.checkpoints import AtomicCheckpointIO
from commands import stage_state
from commands.comparison.metrics_table import read_metrics
from commands.comparison.results import Result, curves, read_config
from commands.comparison.results import read_predictions as predictions_of_run
from commands.recipes.document import resolve
from commands.recipes.inputs import Digests
from commands.recipes.reading import read_document
from commands.score_files import read_predictions, read_references
from commands.trainer.config_files import check_files
from commands.trainer.old_names import NewNames
from core.locks import read_owner
from datamodules.coco import COCOCaptions
from datamodules.flickr8k import Flickr8k
from datamodules.folder_captions import FolderCaptions
from datamodules.folder_labels import FolderLabels
from datamodules.loading.tokenization import BPETokenizer, build_tokenizer
from datamodules.readers.image_refs import ImageFile
from datamodules.readers.images import open_image
from datamodules.readers.probability_files import read_probabilities
from datamodules.readers.records import Example
from datamodules.readers.ucm_labels import read_label_table
from datamodules.readers.ucm_names import image_names
from datamodules.scenes import SceneCaptions
from datamodules.socratis import Socratis
from datamodules.splitting.stratified import kept_splits
from datamodules.stored_features.files import FeatureStore
from datamodules.stored_features.regions import open_regions
from datamodules.ucm_captions import UCMCaptions
from lightning_modules import AttentionRNN, load_captioner
from networks.decoders.language import build_language_model
from networks.decoders.word_vectors import read_word_vectors
from networks.emotion.bert import bert_config, load_word_embeddings
from networks.layers.weights import read_state
from reporting.loggers import CSVFile, read_facts
from tests.hostile_documents import (
    CAPTIONS,
    COCO,
    CONFIG,
    KARPATHY,
    LABELS,
    LINES,
    LISTS,
    METRICS,
    PICTURES,
    PREDICTED,
    RECIPE,
    ROWS,
    RUN,
    SOCRATIS,
    STAGE,
    TABLE,
    TOKENS,
    WORDS,
)


@dataclass(frozen=True)
class Reader:
    """A way in.

    Attributes:
        name: for the test.
        file: name of the file that is damaged, below the folder, or its pattern.
        make: writes it, and what it needs beside it, into a folder.
        read: reads the folder.
    """

    name: str
    file: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]

    def __str__(self) -> str:
        return self.name


def pictures(folder: Path) -> None:
    for place in ("images", "images/train2017", "images/val2017"):  # the last two are COCO's
        (folder / place).mkdir(exist_ok=True)
        for name in PICTURES:
            Image.new("RGB", (6, 4), "red").save(folder / place / name)


def image(file: str, mode: str = "RGB") -> Reader:
    values = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)

    def make(folder: Path) -> None:
        Image.fromarray(values).convert(mode).save(folder / file)

    return Reader(f"image {file}", file, make, lambda folder: open_image(folder / file))


def text(name: str, file: str, content: str, read: Callable[[Path], object], with_pictures: bool = False) -> Reader:
    def make(folder: Path) -> None:
        (folder / file).parent.mkdir(exist_ok=True, parents=True)
        (folder / file).write_text(content)
        if with_pictures:
            pictures(folder)

    return Reader(name, file, make, read)


def data(kind: Callable[..., Any], **options: Any) -> Callable[[Path], object]:
    """Reads all splits of a data module."""

    def read(folder: Path) -> object:
        module = kind(root=str(folder), **options)
        return [module.load_examples(split) for split in ("train", "val", "test")]

    return read


def make_flickr(folder: Path) -> None:
    pictures(folder)
    (folder / "Flickr8k.token.txt").write_text(TOKENS)
    for place, name in enumerate(LISTS):
        (folder / name).write_text(PICTURES[place] + "\n")


def references_of(folder: Path) -> object:
    return read_references(folder / "r.json", ["0", "1", "2"])


def resumed(folder: Path) -> None:
    CSVFile(folder).resume_at(3)


def run_predictions(folder: Path) -> object:
    return predictions_of_run(Result(name="x", folder=folder, run=None, split="test", metrics={}, baselines={}))


def recipe(folder: Path) -> object:
    path = folder / "r.yaml"
    return resolve(read_document(path), path, {}, folder)


def configuration(folder: Path) -> object:
    file = str(folder / "config.yaml")
    check_files([file])
    with NewNames() as names:
        return names.arguments(["fit", "--config", file])


def tsv_line(name: str) -> str:
    boxes, values = (base64.b64encode(np.ones((2, width), np.float32).tobytes()).decode() for width in (4, 6))
    return "\t".join([name, "640", "480", "2", boxes, values])


def regions(path: str) -> Callable[[Path], object]:
    """The regions of an image, through a store that is made for it."""

    def read(folder: Path) -> object:
        example = Example(image_id="a", image=ImageFile("a.png"))
        return open_regions(path, folder, folder / "cache").store([example], folder / "cache")[0]

    return read


def make_array(folder: Path, save: Callable[..., object], name: str) -> None:
    (folder / "r").mkdir()
    save(folder / "r" / name, np.ones((2, 6), np.float32))


def make_store(folder: Path) -> None:
    np.save(folder / "features.npy", np.ones((3, 2, 6), np.float16))


def read_store(folder: Path) -> object:
    store = FeatureStore(folder)
    return store.shape, store.means(), store.regions(0)


def make_probabilities(folder: Path) -> None:
    schema = pa.schema(
        [("image_id", pa.string()), ("sad", pa.float32()), ("calm", pa.float32())],
        metadata={"label_names": json.dumps(["sad", "calm"]), "model": "m"},
    )
    rows = pa.table({"image_id": ["a", "b"], "sad": [0.5, 0.25], "calm": [0.0, 1.0]}).cast(schema)
    pq.write_table(rows, folder / "rank000-00000.parquet")


def make_weights(folder: Path, name: str) -> None:
    state = {"weight": torch.ones(4, 3), "bias": torch.zeros(4)}
    save_file(state, folder / name) if name.endswith(".safetensors") else torch.save(state, folder / name)


def make_bert(folder: Path) -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=20, max_position_embeddings=16, **sizes)).save_pretrained(folder)


def read_bert(folder: Path) -> object:
    found = bert_config("bert", str(folder), vocab_size=20, pad_id=0)
    load_word_embeddings(torch.nn.Embedding(20, 8), str(folder))
    return found


def make_language(folder: Path) -> None:
    build_language_model("gpt2", None, vocab_size=20, layers=1, heads=2, hidden_dim=8).network.save_pretrained(folder)


def read_language(folder: Path) -> object:
    return build_language_model("gpt2", str(folder), vocab_size=20)


def make_tokenizer(folder: Path) -> None:
    own = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    own.save(str(folder / "tokenizer.json"))
    special = {"eos_token": "[SEP]", "bos_token": "[CLS]", "pad_token": "[PAD]"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **special}))


def read_tokenizer(folder: Path) -> object:
    return BPETokenizer.load(str(folder), 8).encode("dog runs")


@lru_cache(maxsize=1)
def checkpoint() -> dict[str, Any]:
    """Content of a captioner's checkpoint."""
    scenes = SceneCaptions(num_train=6, num_val=2, num_test=2, batch_size=2)
    small = {"image_encoder": "small-conv", "region_dim": 8, "hidden_dim": 8, "word_dim": 8, "attention_dim": 8}
    module = AttentionRNN.for_data(scenes, **small)
    module.inference = {"method": module.method, **scenes.describe()}
    module.inference["decoding"] = asdict(module.decoding("test"))
    return {
        "epoch": 0,
        "global_step": 1,
        "pytorch-lightning_version": "2.6.4",
        "state_dict": module.state_dict(),
        "hyper_parameters": dict(module.hparams),
        "inference": module.inference,
    }


def make_checkpoint(folder: Path) -> None:
    torch.save(checkpoint(), folder / "x.ckpt")


def vocabulary(folder: Path) -> object:
    return build_tokenizer("word", lambda: CAPTIONS, 1, 8, folder)


def splits_file(folder: Path) -> object:
    keys = [str(n) for n in range(9)]
    return kept_splits(keys, [(1.0,)] * 9, (0.2, 0.2), 0, None, 0, folder / "s.json")


READERS: tuple[Reader, ...] = (
    *(image(f"x.{suffix}") for suffix in ("png", "jpg", "webp", "gif", "bmp", "tif", "ppm")),
    image("grey.png", "I;16"),
    Reader("regions .npy", "r/a.npy", partial(make_array, save=np.save, name="a.npy"), regions("r")),
    Reader("regions .npz", "r/a.npz", partial(make_array, save=np.savez_compressed, name="a.npz"), regions("r")),
    text("regions .tsv", "r.tsv", f"{tsv_line('a')}\n{tsv_line('b')}\n", regions("r.tsv")),
    Reader("feature store", "features.npy", make_store, read_store),
    text(
        "word vectors",
        "v.txt",
        "".join(f"{word} 0.5 -1 2e-3\n" for word in WORDS),
        lambda folder: read_word_vectors(str(folder / "v.txt"), {"dog": 0, "runs": 1}, 3),
    ),
    *(
        Reader(f"weights {name}", name, partial(make_weights, name=name), lambda folder, n=name: read_state(folder / n))
        for name in ("w.safetensors", "w.pth")
    ),
    Reader("weights of BERT", "model.safetensors", make_bert, read_bert),
    Reader("configuration of BERT", "config.json", make_bert, read_bert),
    Reader("weights of a language model", "model.safetensors", make_language, read_language),
    Reader("configuration of a language model", "config.json", make_language, read_language),
    Reader("tokenizer", "tokenizer.json", make_tokenizer, read_tokenizer),
    Reader("configuration of a tokenizer", "tokenizer_config.json", make_tokenizer, read_tokenizer),
    text("vocabulary of BERT", "vocab.txt", "\n".join(WORDS) + "\n", read_tokenizer),
    Reader("vocabulary", "vocabulary*.json", vocabulary, vocabulary),
    text("COCO", "annotations.json", json.dumps(COCO), data(FolderCaptions), True),
    text("Karpathy", "dataset.json", json.dumps(KARPATHY), data(FolderCaptions), True),
    text("Karpathy of COCO", "k.json", json.dumps(KARPATHY), data(COCOCaptions, karpathy="k.json"), True),
    text("UCM-Captions", "dataset.json", json.dumps(KARPATHY), data(UCMCaptions), True),
    text(
        "table",
        "captions.csv",
        TABLE,
        data(FolderCaptions),
        True,
    ),
    text("JSON lines", "captions.jsonl", "\n".join(map(json.dumps, LINES)) + "\n", data(FolderCaptions), True),
    text("JSON list", "captions.json", json.dumps(LINES), data(FolderCaptions), True),
    Reader("Flickr8k", "Flickr8k.token.txt", make_flickr, data(Flickr8k)),
    Reader("list of Flickr8k", LISTS[1], make_flickr, data(Flickr8k)),
    text("labels", "labels.csv", "text,sad,calm,split\na,1,0,train\nb,0,1,val\nc,1,1,test\n", data(FolderLabels)),
    text("labels in JSON lines", "labels.jsonl", "\n".join(map(json.dumps, LABELS)) + "\n", data(FolderLabels)),
    text(
        "multi-labels",
        "multilabels.txt",
        "image\tsea\tsky\na\t1\t0\nb\t0\t1\n",
        lambda folder: read_label_table(folder / "multilabels.txt"),
    ),
    text(
        "index.csv",
        "index.csv",
        "filename,image,name,class\na.tif,b/a.tif,a,sea\n",
        lambda folder: image_names(folder, ["a.tif", "b.tif"], False),
    ),
    text("Socratis", "imCaptionEmotionExplanation_formatted.json", json.dumps(SOCRATIS), data(Socratis)),
    text(
        "cleaned Socratis",
        "cleaned_data.csv",
        "image_name,caption,emotions\n" + "".join(f"{n}.png,c {n},\"['sad', 'calm']\"\n" for n in range(12)),
        data(Socratis),
    ),
    Reader("probabilities", "rank000-00000.parquet", make_probabilities, read_probabilities),
    text("predictions", "p.json", json.dumps(PREDICTED), lambda folder: read_predictions(folder / "p.json")),
    text("references", "r.json", json.dumps(COCO), references_of),
    text("metrics.csv in resume", "metrics.csv", ROWS, resumed),
    text("metrics.csv in compare", "metrics.csv", ROWS, curves),
    text("run.json", "run.json", json.dumps(RUN), read_facts),
    text("metrics.json", "metrics.json", json.dumps(METRICS), read_metrics),
    text("predictions of a run", "predictions.json", json.dumps(PREDICTED), run_predictions),
    text("config.yaml in compare", "config.yaml", yaml.safe_dump(CONFIG), read_config),
    text("config.yaml", "config.yaml", yaml.safe_dump(CONFIG), configuration),
    text("recipe", "r.yaml", yaml.safe_dump(RECIPE), recipe),
    text("stage.json", "stage.json", json.dumps(STAGE), stage_state.read_state),
    text("digests", "notes.json", json.dumps({"x": [1, 2, "d"]}), lambda folder: Digests(folder / "notes.json")),
    text("owner", ".owner", json.dumps({"pid": 1, "host": "x"}), read_owner),
    text("splits", "s.json", json.dumps({str(n): ("train", "val", "test")[n % 3] for n in range(9)}), splits_file),
    Reader("checkpoint to serve", "x.ckpt", make_checkpoint, lambda folder: load_captioner(folder / "x.ckpt")),
    Reader(
        "checkpoint to resume",
        "x.ckpt",
        make_checkpoint,
        lambda folder: AtomicCheckpointIO().load_checkpoint(folder / "x.ckpt"),
    ),
)
"""All of them."""

DOCUMENTS = {
    "COCO": COCO,
    "Karpathy": KARPATHY,
    "UCM-Captions": KARPATHY,
    "JSON list": LINES,
    "Socratis": SOCRATIS,
    "predictions": PREDICTED,
    "references": COCO,
    "run.json": RUN,
    "metrics.json": METRICS,
    "predictions of a run": PREDICTED,
    "stage.json": STAGE,
    "config.yaml in compare": CONFIG,
    "recipe": RECIPE,
}
"""Readers whose file is a document, with the document."""
