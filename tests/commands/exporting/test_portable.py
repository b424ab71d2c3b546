"""An export as graphs captions like its checkpoint, in a process that has nothing of this project."""

import json
import os
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image

import cli
from commands.exporting import onnx_files, standalone, vocabulary
from commands.exporting.portable import _transform, write_portable
from commands.exporting.standalone import Captioner, Stream, prepare, read_picture, text_of
from commands.exporting.vocabulary import text_table
from core.errors import UserError
from datamodules.loading.tokenization import BPETokenizer, WordTokenizer
from datamodules.readers.images import open_image
from datamodules.readers.transforms import ImageTransform
from lightning_modules import load_captioner
from lightning_modules.captioning import CaptioningModule
from networks.generation.search import decode
from networks.generation.settings import DecodingSettings
from tests.twins import batch_maker, cases, saved_and_loaded

WANTED = ("", "regions")
CASES = [
    case
    for case in cases()
    if issubclass(case.method, CaptioningModule)
    and case.method.method != "text_autoencoder"
    and (case.variant in WANTED or str(case) == "attention_rnn-stored")
]
QUICK = (
    ("attention_rnn", "onnx"),
    ("dual_transfer", "onnx"),
    ("emotional_captions", "torch"),
    ("ucm_captioning", "torch"),
)
"""Those of the default suite: every kind of captioner, in one of the engines; writing one takes some seconds."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Makes checkpoints of cases with some pictures: folder, captioner, paths."""
    known = {}
    with batch_maker(tmp_path_factory.mktemp("cache"), 2) as batches:

        def make(case):
            if str(case) not in known:
                folder = tmp_path_factory.mktemp(str(case))
                data, _ = batches(case)
                module = case.make(data)
                module.inference["decoding"] = asdict(module.decoding("test"))
                lively(module)
                saved_and_loaded(module, folder / "model.ckpt")
                paths = various(folder)
                known[str(case)] = folder, load_captioner(folder / "model.ckpt"), paths
            return known[str(case)]

        yield make


def lively(module):
    """Larger weights, so that an untrained captioner says different things of different pictures."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in module.captioner.named_parameters():
            if parameter.ndim > 1 and "encoder." not in name:
                parameter.mul_(2.5)
        if module.captioner.conditions is not None:
            module.captioner.conditions.weight.normal_(std=3)


def various(folder):
    """Pictures that no captioner takes for one another."""
    draw = np.random.default_rng(0)
    arrays = [np.full((64, 64, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 0), (255, 255, 255))]
    arrays.append(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    paths = [folder / f"{number}.png" for number in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        Image.fromarray(array).save(path)
    return paths


def exported(made, case, engine, int8=False):
    folder, captioner, paths = made(case)
    out = folder / f"{engine}-{int8}"
    if not out.exists():
        write_portable(folder / "model.ckpt", None, out, name="m", licence="mit", engine=engine, int8=int8)
    return out, captioner, paths


def in_engines():
    """Every captioner in both engines; of those whose graphs differ one is in the default suite."""
    for case in CASES:
        for engine in ("onnx", "torch"):
            marks = [] if (str(case), engine) in QUICK else [pytest.mark.slow]
            yield pytest.param(case, engine, id=f"{case}-{engine}", marks=marks)


@pytest.mark.parametrize(("case", "engine"), list(in_engines()))
def test_captions_are_those_of_the_checkpoint(made, case, engine):
    out, captioner, paths = exported(made, case, engine)
    alone = Captioner(out)
    labels = [None, *alone.settings["labels"][:2]]
    assert (len(labels) > 1) == (captioner.module.captioner.conditions is not None)
    told = set()
    for beams in (1, 3):
        for label in labels:
            settings = captioner.decoding(beams=beams)
            for path in paths:
                ((text, log_prob),) = captioner.caption(path, settings, emotion=label)[0]
                written, score = alone.caption(path, beams=beams, label=label)
                assert written == text
                assert score == pytest.approx(log_prob, abs=1e-2, rel=1e-4)
                told.add(text)
    assert len(told) > 1, "all pictures have one caption, so that nothing was compared"
    assert alone.caption(paths[0])[0] == captioner.caption(paths[0])[0][0][0]


ALONE = """
import runpy, sys
sys.argv = ["caption.py", *sys.argv[2:]]
folder = {folder!r}
try:
    runpy.run_path(folder + "/caption.py", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""


def named(name):
    return next(case for case in CASES if str(case) == name)


@pytest.mark.parametrize(("name", "engine"), [QUICK[0], pytest.param(*QUICK[2], marks=pytest.mark.slow)])
def test_it_runs_alone(made, name, engine, tmp_path):
    out, captioner, paths = exported(made, named(name), engine)
    words = [sys.executable, "-I", "-c", ALONE.format(folder=str(out)), "-", str(paths[0]), "--json"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True, env=dict(os.environ))
    row, modules = done.stdout.splitlines()
    assert json.loads(row)["caption"] == captioner.caption(paths[0])[0][0][0]
    foreign = {"lightning", "transformers", "tokenizers", "torchvision", "timm", "commands", "networks", "core"}
    assert not foreign & set(modules.split())
    assert ("torch" in modules.split()) == (engine == "torch")
    assert sorted(path.name for path in out.iterdir() if path.suffix not in (".onnx", ".pt2")) == [
        *("README.md", "caption.py", "captioner.json", "transform.json", "vocabulary.json")
    ]
    assert "python caption.py picture.jpg" in (out / "README.md").read_text()
    assert "load_captioner" not in (out / "README.md").read_text()


def test_a_mistake_is_one_line(made, tmp_path, monkeypatch, capsys):
    out, _, paths = exported(made, named("attention_rnn"), "onnx")
    monkeypatch.setattr(standalone, "__file__", str(out / "caption.py"))
    (tmp_path / "text.png").write_text("no picture")
    for more in (["nowhere.png"], [str(tmp_path / "text.png")], [str(paths[0]), "--label", "joy"]):
        assert standalone.main(more) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
    assert standalone.main([str(paths[0])]) == 0
    assert capsys.readouterr().out.startswith(f"{paths[0]}: ")


def test_integers_change_little(made, tmp_path):
    out, _, paths = exported(made, named("attention_rnn"), "onnx")
    onnx_files._quantise(out / "step.onnx", tmp_path / "step.onnx")
    pixels = prepare(read_picture(paths[0]), Captioner(out).transform)
    exact = standalone.OnnxGraphs(out, ("encoder.onnx", "step.onnx"), threads=1)
    (out / "near.onnx").write_bytes((tmp_path / "step.onnx").read_bytes())
    near = standalone.OnnxGraphs(out, ("encoder.onnx", "near.onnx"), threads=1)
    (out / "near.onnx").unlink()
    _, *values = exact(0, [pixels])
    one, other = (graphs(1, [np.array([5]), *values])[0] for graphs in (exact, near))
    assert not np.array_equal(one, other)
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.98


@pytest.mark.slow
def test_integers_take_less_room(made):
    (whole, *_), (small, *_) = (exported(made, named("dual_transfer"), "onnx", int8=int8) for int8 in (False, True))
    assert (small / "encoder.onnx").stat().st_size < (whole / "encoder.onnx").stat().st_size
    assert Captioner(small).caption(various(small)[0])[0]


class Table(torch.nn.Module):
    """Scores that depend on the last two tokens and the row's picture, as a captioner and as graphs."""

    bos_id, eos_id, pad_id, unk_id = 0, 1, 2, 3

    def __init__(self, size, seed):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.table = torch.randn(size, size, size, generator=draw) * 2

    def step(self, memory, token, state):
        before = torch.zeros_like(token) if state is None else state["before"]
        return self.table[before, token] + memory["image"], {"before": token}

    def retrieve(self, memory, count):
        raise AssertionError

    def __call__(self, graph, values):
        arrays = [torch.from_numpy(value) for value in values]
        if graph == 0:
            memory, bos = arrays[0], torch.zeros(len(arrays[0]), dtype=torch.long)
            logits, state = self.step({"image": memory}, bos, None)
            return [logits.numpy(), memory.numpy(), state["before"].numpy()]
        logits, state = self.step({"image": arrays[1]}, arrays[0], {"before": arrays[2]})
        return [logits.numpy(), state["before"].numpy()]


@pytest.mark.parametrize("early_stopping", [True, False])
@pytest.mark.parametrize("ngram", [0, 2])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("beams", [1, 2, 5])
def test_the_loop_finds_what_the_search_of_the_project_finds(beams, penalty, ngram, early_stopping):
    alone = Captioner.__new__(Captioner)
    alone.settings = {"bos": 0, "eos": 1, "pad": 2, "unk": 3, "max_tokens": 9, "length_penalty": penalty}
    alone.settings |= {"no_repeat_ngram_size": ngram, "early_stopping": early_stopping}
    ended = set()
    for seed in range(12):
        size = (5, 9, 300)[seed % 3]
        model = Table(size, seed)
        image = torch.randn(1, size, generator=torch.Generator().manual_seed(seed))
        settings = DecodingSettings(
            beams=beams,
            max_tokens=9,
            length_penalty=penalty,
            no_repeat_ngram_size=ngram,
            early_stopping=early_stopping,
        )
        found = decode(model, {"image": image}, settings)
        tokens, log_prob = alone.search(Stream(model, [image.numpy()], memory=1), beams)
        assert tokens == found.token_ids[0, 0, : found.lengths[0, 0]].tolist()
        assert log_prob == pytest.approx(found.log_prob[0, 0].item(), abs=1e-4)
        ended.add(tokens[-1] == 1)
    assert ended == {True, False}, "captions that end and that are cut off"


def pictures(folder):
    draw = np.random.default_rng(0)
    noise = Image.fromarray(draw.integers(0, 256, (50, 70, 3), dtype=np.uint8)).resize((700, 460))
    turned = Image.Exif()
    turned[0x0112] = 6
    noise.save(folder / "large.jpg")
    noise.save(folder / "turned.jpg", exif=turned)
    noise.convert("L").save(folder / "grey.png")
    noise.convert("P").save(folder / "palette.png")
    noise.convert("CMYK").save(folder / "print.jpg")
    alpha = noise.convert("RGBA")
    alpha.putalpha(noise.convert("L"))
    alpha.save(folder / "glass.png")
    Image.fromarray(draw.integers(0, 65536, (40, 30), dtype=np.uint16)).save(folder / "deep.png")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_pictures_are_prepared_to_the_bit(tmp_path, resize):
    for size, interpolation, normalization in ((64, "bicubic", "imagenet"), (33, "bilinear", "clip")):
        ours = ImageTransform(size=size, resize=resize, interpolation=interpolation, normalization=normalization)
        spec = _transform(type("Model", (), {"transform": ours}))
        (tmp_path / str(size)).mkdir()
        for path in pictures(tmp_path / str(size)):
            wanted = ours(open_image(path, min_side=ours.min_side))
            given = prepare(read_picture(path, spec["min_side"]), spec)
            assert np.array_equal(given[0], wanted.numpy()), path.name


def test_words_come_from_the_table():
    tokenizer = WordTokenizer(["dog", "a"])
    assert text_of(text_table(tokenizer), [5, 4, 4]) == tokenizer.decode([5, 4, 4]) == "a dog dog"


@pytest.mark.parametrize(("name", "kind"), [("gpt2", "bytes"), ("bert-base-uncased", "pieces")])
def test_pieces_come_from_the_table(data_root, name, kind):
    tokenizer = BPETokenizer.load(str(data_root / "tokenizers" / name), 36)
    table = text_table(tokenizer)
    assert table["kind"] == kind
    for text in ("a dog's bowl, 3 cats", "naïve café \u2603 日本", "x" * 40):
        ids = tokenizer.encode(text)[1:-1]
        assert text_of(table, ids) == tokenizer.decode(ids)
    table["tokens" if kind == "bytes" else "later"][ids[-1]] += "x"
    assert text_of(table, [*ids, ids[-1]]) != tokenizer.decode([*ids, ids[-1]])


def test_a_tokenizer_that_no_table_holds_is_refused():
    class Backwards(WordTokenizer):
        def decode(self, ids):
            return super().decode(list(ids)[::-1])

        def spec(self):
            return {"tokenizer": json.dumps({"decoder": None})}

    tokenizer = Backwards(["dog", "a"])
    with pytest.raises(UserError, match="leave out --format"):
        vocabulary._check(vocabulary._pieces(tokenizer), tokenizer)


def refused(capsys, *words):
    assert cli.main(["export", *map(str, words)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_what_a_graph_cannot_do_is_refused(made, tmp_path, capsys, monkeypatch):
    folder, _, _ = made(CASES[0])
    file, out = folder / "model.ckpt", ["--out", tmp_path / "out"]
    assert "--int8 does not go with --format torch" in refused(capsys, file, *out, "--format=torch", "--int8")
    assert "--format onnx does not go with --to hub" in refused(capsys, file, "--to=hub", "--repo=a/b", "--format=onnx")
    assert "--no-reranking goes with" in refused(capsys, file, *out, "--no-reranking")
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["inference"]["decoding"]["mbr_reranking"] = True
    torch.save(checkpoint, tmp_path / "anew.ckpt")
    assert "give --no-reranking" in refused(capsys, tmp_path / "anew.ckpt", *out, "--format=torch")
    checkpoint["inference"]["decoding"]["mbr_reranking"] = False
    checkpoint["hyper_parameters"]["control"] = "runs/classifier"
    torch.save(checkpoint, tmp_path / "guided.ckpt")
    assert "a classifier guides" in refused(capsys, tmp_path / "guided.ckpt", *out, "--format=torch")
    checkpoint["inference"]["regions"] = {"files": "features.h5"}
    torch.save(checkpoint, tmp_path / "files.ckpt")
    assert "reads features from files" in refused(capsys, tmp_path / "files.ckpt", *out, "--format=torch")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "installs it" in refused(capsys, file, *out, "--format=onnx")
    assert not (tmp_path / "out").exists()
