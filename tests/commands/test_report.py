"""The report of a run: its numbers are those of the files, it needs nothing else, and it never harms a run."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import cli
from commands.run_report.captions import choose_images
from metrics.baselines.rows import HUMAN
from metrics.caption_statistics import caption_statistics
from metrics.captions import score_images
from tests.commands.made_runs import COLOURS, NASTY, make_data, make_run, right, wrong
from tests.tiny import make_config, make_folder


class Parsed(HTMLParser):
    """Cells of the tables, texts and addresses of a page."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.addresses, self.tags, self.texts = [], [], [], []
        self._cell = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._cell = True
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data):
        self.texts.append(data)
        if self._cell:
            self.rows[-1][-1] += data.strip()

    def row(self, name):
        return next(row for row in self.rows if row and row[0].startswith(name))


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_data(tmp_path / "data")


def report(run, *options):
    assert cli.main(["report", str(run), *options]) == 0
    return Path(run, "report.html").read_text("utf-8")


def test_numbers_are_those_of_the_files(data):
    run = make_run(data, "a/one", wrong)
    page = Parsed(report(run))
    rows = json.loads(Path(run, "eval/test/metrics.json").read_text())
    assert page.row("")[1:] == ["BLEU-4", "CIDEr-D"]
    for name, title in (("this model", "this run"), ("constant caption",) * 2, ("human against the others", HUMAN)):
        expected = [f"{rows[name][key]:.3f}" if key in rows[name] else "" for key in ("bleu4", "cider_d")]
        assert page.row(title)[1:] == expected
    said = {row["image_id"]: row["caption"] for row in json.loads(Path(run, "eval/test/predictions.json").read_text())}
    statistics = caption_statistics(said.values())
    assert page.row("distinct captions")[1] == str(statistics.distinct)
    assert page.row("words per caption")[1] == f"{statistics.mean_length:.3f}"
    assert page.row("test")[1:3] == ["8", "16"]
    colours = {image: COLOURS[int(image[:2]) % 4] for image in said}
    references = {image: [f"a {colour} picture", f"all of it is {colour}"] for image, colour in colours.items()}
    scores = score_images(said, references)
    shown = dict(zip(scores.image_ids, scores.table()["cider_d"], strict=True))
    text = " ".join(page.texts)
    for image, caption in said.items():
        assert re.search(rf"{re.escape(image)}.*?{shown[image]:.2f}.*?{re.escape(caption)}", text, re.S)


def test_page_needs_nothing_else_and_takes_no_text_for_markup(data):
    page = report(make_run(data, "a/one", lambda number: NASTY))
    parsed = Parsed(page)
    assert parsed.tags.count("script") == 1
    assert "alert" in page
    assert all(address.startswith("data:image/") for address in parsed.addresses if address)
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?https?:", page)


def test_collapse_is_named_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = make_data(tmp_path / "data", tested=24)
    run = make_run(data, "a/one", right)
    said = [{"image_id": f"{n:02d}.png", "caption": "a dog"} for n in range(24)]
    Path(run, "eval/test/predictions.json").write_text(json.dumps(said))
    page = report(run)
    warning = "24 of 24 images have the same caption: &#34;a dog&#34;"
    assert page.index(warning) < page.index("Metrics on test")
    said[3:] = [{**row, "caption": right(n)} for n, row in enumerate(said[3:], 3)]
    Path(run, "eval/test/predictions.json").write_text(json.dumps(said))
    assert "the same caption" not in report(run)


def test_images_are_the_best_the_worst_and_random_ones():
    scores = {str(n): n / 10 for n in range(30)}
    groups = choose_images(list(scores), scores, 9)
    assert [image for image, names in groups.items() if names == ["best"]] == ["29", "28", "27"]
    assert [image for image, names in groups.items() if names == ["worst"]] == ["0", "1", "2"]
    assert sum(names == ["random"] for names in groups.values()) == 3
    assert len(choose_images(["a", "b"], {}, 9)) == 2
    assert choose_images(["a", "b"], {"a": 1.0}, 0) == {}


def test_labels_have_their_table_curve_and_confusions(data):
    (data / "labels.csv").write_text(
        "image,dark,light,split\n"
        + "".join(f"{n:02d}.png,{n % 2},{(n + 1) % 2},{'test' if n < 8 else 'train'}\n" for n in range(12))
    )
    run = make_run(data, "a/one", right, labels_file="labels.csv")
    config = json.loads(Path(run, "config.yaml").read_text())
    config["data"]["class_path"] = "datamodules.folder_labels.FolderLabels"
    Path(run, "config.yaml").write_text(json.dumps(config))
    rows = [
        {
            "image_id": f"{n:02d}.png",
            "probabilities": {"dark": 0.9 if n % 2 else [0.6, 0.2][n > 0], "light": [0.3, 0.8][n > 0]},
        }
        for n in range(8)
    ]
    Path(run, "eval/test/predictions.json").write_text(json.dumps(rows))
    Path(run, "eval/test/metrics.json").write_text(json.dumps({"this model": {"macro_ap": 0.9, "threshold": 0.5}}))
    page = Parsed(report(run))
    assert page.row("dark") == ["dark", "4", "5", "0.800", "1.000", "0.889", "1.000"]
    assert page.row("light")[:5] == ["light", "4", "7", "0.429", "0.750"]
    assert ["light", "dark", "1"] in page.rows


def test_what_other_evaluations_leave_is_shown(data):
    run = make_run(data, "a/one", right)
    folder = Path(run, "eval/test")
    (folder / "retrieval.json").write_text(
        json.dumps([{"image_id": "00.png", "retrieved": [{"caption": "a red picture", "true": True}]}])
    )
    (folder / "reconstructions.json").write_text(
        json.dumps(
            [
                {"image_id": "00.png", "original": "a red dog", "reconstruction": "a red cat"},
                {"image_id": "01.png", "original": "A red bird.", "reconstruction": "a red bird"},
            ]
        )
    )
    (folder / "codes.png").write_bytes((data / "images/00.png").read_bytes())
    page = Parsed(report(run))
    assert page.row("00.png") == ["00.png", "1", "a red picture", "yes"]
    assert page.row("a red dog") == ["a red dog", "a red cat"]
    assert page.row("A red bird.") == ["A red bird."]
    assert "1 of 2 captions are reconstructed exactly." in page.texts


def test_run_without_evaluation_or_data_still_has_a_report(data):
    run = make_run(data, "a/one", right)
    (data / "captions.csv").unlink()
    assert "None are shown" in report(run)
    for path in Path(run, "eval/test").iterdir():
        path.unlink()
    Path(run, "metrics.csv").unlink()
    assert "it was not evaluated yet" in report(run)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["data"], "'data' is no run folder, it has no config.yaml"),
        (["a", "b", "--out", "x"], "is one file, for 2 runs"),
        (["a", "--images", "-1"], "--images -1: expected 0 or more"),
    ],
)
def test_mistakes_are_one_line(data, capsys, args, expected):
    del data
    assert cli.main(["report", *args]) == 1
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


def test_fit_and_test_write_it_and_a_failure_costs_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CAPTION_REPORT")
    config = make_config(tmp_path / "tiny.yaml", make_folder(tmp_path / "data"), epochs=1)
    assert cli.main(["fit", "--config", str(config), "--run_dir", "run"]) == 0
    parsed = Parsed(Path("run/report.html").read_text("utf-8"))
    assert "DualTransfer on" in " ".join(parsed.texts)
    facts = json.loads(Path("run/run.json").read_text())
    assert f"{facts['parameters']['total']:,}" in " ".join(parsed.texts)
    Path("run/report.html").unlink()
    assert cli.main(["test", "--ckpt_path", "run", "--report=false"]) == 0
    assert not Path("run/report.html").exists()
    monkeypatch.setattr("reporting.page.render_report", lambda report: 1 / 0)
    assert cli.main(["validate", "--ckpt_path", "run"]) == 0
    assert "warning: no report was written (division by zero)" in capsys.readouterr().err
