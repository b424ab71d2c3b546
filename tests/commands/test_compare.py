"""Runs side by side: the right figures, one page that needs nothing else, no comparison of what cannot be compared."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import cli
from callbacks.report import write_baselines
from commands.comparison.paired import compare_over_seeds
from commands.comparison.results import read_results
from commands.comparison.sweep import sweeps
from core.errors import UserError
from metrics.bootstrap import paired_bootstrap
from metrics.captions import score_images
from tests.commands.made_runs import COLOURS, make_data, make_run, right, wrong


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_data(tmp_path / "data")


def error_of(capsys, *args):
    capsys.readouterr()
    assert cli.main(["compare", *args]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_everything_is_written_and_right(data, capsys):
    a, b = make_run(data, "wrong", wrong), make_run(data, "right", right, score=0.7)
    assert cli.main(["compare", a, b, "--out", "out", "--json", "--samples=200"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content == json.loads(Path("out/compare.json").read_text())
    assert content["runs"]["right"]["metrics"]["cider_d"] == 0.7
    assert list(content["baselines"]) == ["constant caption", "leave-one-out human"]  # the old name is read
    references = {f"{n:02d}.png": [f"a {COLOURS[n % 4]} picture", f"all of it is {COLOURS[n % 4]}"] for n in range(8)}
    scored = [score_images({name: say(n) for n, name in enumerate(references)}, references) for say in (wrong, right)]
    expected = paired_bootstrap(*scored, samples=200)
    (pair,) = content["bootstrap"]
    assert (pair["a"], pair["b"]) == ("wrong", "right")
    for name, found in pair["scores"].items():
        assert found["difference"] == pytest.approx(expected[name].difference)
        assert (found["low"], found["high"]) == pytest.approx((expected[name].low, expected[name].high))
    for name in ("curves", "bars"):
        with Image.open(f"out/{name}.png") as picture:
            assert min(picture.size) > 200
            assert np.asarray(picture.convert("L")).std() > 5


def test_runs_below_a_baseline_are_flagged(data, capsys):
    poor, good = make_run(data, "poor", wrong, score=0.15), make_run(data, "good", right, score=0.7)
    assert cli.main(["compare", poor, good, "--out", "out", "--samples=20"]) == 0
    out, page = capsys.readouterr().out, Path("out/compare.html").read_text()
    reason = "cider_d 0.150 does not beat constant caption (0.200)"
    assert f"▾ poor is BELOW A BASELINE: {reason}" in out
    assert "poor ▾" in out
    assert "good ▾" not in out
    assert f"<p>▾ poor is below a baseline: {reason}</p>" in page
    assert "▾ good" not in page


def test_page_needs_nothing_else_and_escapes_everything(data, capsys):
    runs = [make_run(data, "wrong", wrong), make_run(data, "<b>right", right)]
    assert cli.main(["compare", *runs, "--out", "out", "--samples=50", "--pictures=5"]) == 0
    page = Path("out/compare.html").read_text()
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; a &#34;red&#34; picture" in page
    sources = re.findall(r'src="([^"]{0,40})', page)
    assert len(sources) == 2 + 5
    assert all(source.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) for source in sources)
    assert not re.search(r"https?://|@import|url\(|<link", page)
    assert page.count('<div class="card">') == 5
    out = capsys.readouterr().out
    assert "leave-one-out human" in out
    assert "first: wrong, second: <b>right" in out


def test_many_runs(data):
    runs = [make_run(data, f"run{number}", right, score=number / 15) for number in range(15)]
    assert cli.main(["compare", *runs, "--out", "out", "--samples=0", "--pictures=0"]) == 0
    assert "Comparison of 15 runs" in Path("out/compare.html").read_text()
    assert json.loads(Path("out/compare.json").read_text())["bootstrap"] == []


def test_runs_of_different_data_are_refused(data, capsys):
    a, b = make_run(data, "a", right, split_seed=0), make_run(data, "b", right, split_seed=1)
    message = error_of(capsys, a, b, "--out", "out")
    assert "different data (data.init_args.split_seed: 0 (a), 1 (b))" in message
    assert not Path("out").exists()
    assert cli.main(["compare", a, b, "--out", "out", "--different-data"]) == 0
    assert "not comparable" in capsys.readouterr().out


def test_runs_tested_on_different_images_are_refused(data, capsys):
    a, b = make_run(data, "a", right), make_run(data, "b", right)
    rows = json.loads(Path(b, "eval/test/predictions.json").read_text())
    Path(b, "eval/test/predictions.json").write_text(json.dumps(rows[1:]))
    assert "'a' was evaluated on 8 images and 'b' on 7, 1 of them by one only (such as 00.png)" in error_of(
        capsys, a, b
    )


def test_split_is_chosen_by_what_all_have(data, capsys):
    a, b = make_run(data, "a", right), make_run(data, "b", right)
    for path in (Path(b) / "eval" / "test").iterdir():
        path.unlink()
    (result, _) = read_results([a, b], None)
    assert (result.split, result.metrics["cider_d"]) == ("val", 0.9)  # the best while training
    assert "'runs/b' was not evaluated on the test split: run python cli.py test --ckpt_path runs/b" in error_of(
        capsys, a, b, "--split", "test"
    )


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["nowhere"], "'nowhere' is no run and no evaluation"),
        (["runs/a", "--metrics", "ciderd"], "--metrics: no run has 'ciderd'"),
        (["runs/a", "--curves", "val/x"], "--curves val/x: no run logged it"),
        (["runs/a", "--baseline", "b"], "--baseline b: expected one of a"),
        (["runs/a", "--over", "depth"], "--over depth: expected a number in which the runs differ: none"),
        (["runs/a", "--samples=-1"], "expected 0 or more"),
        ([], "the following arguments are required: RUN"),
    ],
)
def test_mistakes_are_one_line(data, capsys, args, expected):
    make_run(data, "a", right)
    assert expected in error_of(capsys, *args)


def test_broken_predictions_are_named(data, capsys):
    a = make_run(data, "a", right)
    Path(a, "eval/test/predictions.json").write_text('[{"image_id": 1}]')
    assert "predictions.json: not a file of predictions" in error_of(capsys, a)


def test_a_comparison_is_never_overwritten(data, capsys):
    a = make_run(data, "a", right)
    assert cli.main(["compare", a, "--out", "out"]) == 0
    assert "--out out holds a comparison already" in error_of(capsys, a, "--out", "out")


def test_sweep_groups_runs_and_averages_seeds(data):
    runs = [
        make_run(
            data, f"{seed}/{start}{n}", right, seed, {"depth": n, "init_from": f"runs/{seed}/{start}"}, score=score
        )
        for n in (0, 1, 2)
        for start in ("A", "B")
        for seed in (1, 2)
        for score in [n + seed / 10 - (start == "B")]
    ]
    results = read_results(runs, "test")
    (figure,) = sweeps(results, ["cider_d"], None).values()
    (axis,) = figure.axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("depth", "CIDEr-D")
    assert [line.get_label() for line in axis.lines] == ["init_from A", "init_from B"]
    assert list(axis.lines[0].get_xdata()) == [0, 1, 2]
    assert list(axis.lines[0].get_ydata()) == pytest.approx([0.15, 1.15, 2.15])
    with pytest.raises(UserError, match="--over init_from"):
        sweeps(results, ["cider_d"], "init_from")


def state_of(command):
    state = {"status": "done", "mark": "1", "command": command, "started": "2026-11-27 08:00:00"}
    return json.dumps({**state, "fingerprint": {"words": [], "files": {}, "stages": {}}})


def test_stage_of_a_recipe_knows_its_run(data):
    run = make_run(data, "seed-1/model", right)
    stage = Path("runs/seed-1/test_model")
    (Path(run) / "eval" / "test").rename(stage)
    words = f"python cli.py test --ckpt_path {run} --data.init_args.split_seed 4 --run_dir x"
    (stage / "stage.json").write_text(state_of(words))
    (result,) = read_results([str(stage)], None)
    assert (result.name, result.split, str(result.run)) == ("test_model", "test", run)
    assert result.settings["data.init_args.split_seed"] == 4
    assert result.settings["data.init_args.image_size"] == 32
    assert cli.main(["compare", str(stage), "--out", "out"]) == 0


def test_data_of_a_test_may_be_another_than_that_of_training(data, monkeypatch):
    run = make_run("/nowhere", "seed-1/model", right)
    stage = Path("runs/seed-1/test_model")
    (Path(run) / "eval" / "test").rename(stage)
    section = {"class_path": "datamodules.folder_captions.FolderCaptions", "init_args": {"root": "${oc.env:HERE}"}}
    Path("other.yaml").write_text(json.dumps({"model": {}, "data": section}))
    monkeypatch.setenv("HERE", str(data))
    words = f"python cli.py test --config other.yaml --ckpt_path {run}"
    (stage / "stage.json").write_text(state_of(words))
    other = make_run(data, "other", right, batch_size=2)
    assert cli.main(["compare", str(stage), other, "--out", "out", "--samples=20"]) == 0
    assert json.loads(Path("out/compare.json").read_text())["bootstrap"]


def test_labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from datamodules.scenes import SceneCaptions

    settings = {"num_train": 4, "num_val": 4, "num_test": 6, "labels": "objects"}
    examples = SceneCaptions(**settings).examples("test")
    names = SceneCaptions(**settings).label_names
    for run, noise in (("blind", 1.0), ("sharp", 0.0)):
        folder = Path(run)
        (folder / "eval" / "test").mkdir(parents=True)
        data = {"class_path": "datamodules.scenes.SceneCaptions", "init_args": settings}
        (folder / "config.yaml").write_text(json.dumps({"data": data}))
        rows = [
            {
                "image_id": e.image_id,
                "probabilities": {n: (1 - noise) * t for n, t in zip(names, e.labels, strict=True)},
            }
            for e in examples
        ]
        (folder / "eval" / "test" / "predictions.json").write_text(json.dumps(rows))
        (folder / "eval" / "test" / "metrics.json").write_text(json.dumps({"this model": {"macro_ap": 1 - noise}}))
    assert cli.main(["compare", "blind", "sharp", "--out", "out", "--samples=50"]) == 0
    (pair,) = json.loads(Path("out/compare.json").read_text())["bootstrap"]
    assert pair["scores"]["macro_ap"]["b"] == 1.0
    assert pair["scores"]["macro_ap"]["low"] > 0
    true = names[examples[0].labels.index(1.0)]
    assert f'<span class="label true">{true} 1.00</span>' in Path("out/compare.html").read_text()


def test_seeds_are_averaged_over_the_same_images(data):
    pairs = [(make_run(data, f"seed-{n}/a", wrong), make_run(data, f"seed-{n}/b", right)) for n in (1, 2)]
    runs = [tuple(read_results(pair, "test")) for pair in pairs]
    twice, once = compare_over_seeds(runs, 100), compare_over_seeds(runs[:1], 100)
    for name, found in once.items():
        assert [twice[name].difference, twice[name].low, twice[name].high] == pytest.approx(
            [found.difference, found.low, found.high]
        )


@pytest.mark.parametrize("place", ["baselines", "floors"])  # the old folder is read
def test_a_baseline_takes_part_like_a_run(data, place):
    run, same = make_run(data, "model", right), make_run(data, "same", wrong)
    folder = Path(run) / "eval" / "test" / place
    captions = {"wrong, by hand": {f"{n:02d}.png": wrong(n) for n in range(8)}}
    stub = SimpleNamespace(
        examples=lambda split: [SimpleNamespace(image_id=f"{n:02d}.png") for n in range(8)],
        baseline_captions=lambda split: captions,
    )
    write_baselines(folder, stub, "test")
    (model,), (other,) = read_results([run], "test"), read_results([same], "test")
    baseline = replace(model, name="wrong, by hand", baseline="wrong, by hand")
    found = compare_over_seeds([(baseline, model)], 100)
    assert found["bleu4"].difference == compare_over_seeds([(other, model)], 100)["bleu4"].difference > 0
    with pytest.raises(UserError, match="no captions of the row 'unknown'"):
        compare_over_seeds([(replace(model, name="unknown", baseline="unknown"), model)], 100)


def test_seeds_with_images_of_their_own_are_pooled(data, tmp_path):
    other = tmp_path / "other"
    (other / "images").mkdir(parents=True)
    for path in (data / "images").iterdir():
        (other / "images" / path.name).write_bytes(path.read_bytes())
    text = (data / "captions.csv").read_text()
    (other / "captions.csv").write_text(text.replace("all of it is", "nothing but"))
    pairs = [
        (make_run(root, f"{root.name}/a", wrong), make_run(root, f"{root.name}/b", right)) for root in (data, other)
    ]
    found = compare_over_seeds([tuple(read_results(pair, "test")) for pair in pairs], 100)
    assert found["bleu1"].difference > 0
    with pytest.raises(UserError, match=r"different data \(data.init_args.root"):
        compare_over_seeds([tuple(read_results([pairs[0][0], pairs[1][1]], "test"))], 100)
