"""``cli.py score``: right scores for files that fit, one clear line for files that do not."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from commands.score import main
from core.errors import UserError
from metrics.captions import SCORES, score_captions
from metrics.names import metric

ROOT = Path(__file__).resolve().parents[2]
REFERENCES = {"7": ["A dog runs on grass.", "a brown dog"], "8": ["Two cats sleep."], "9": ["A man on a horse."]}
CAPTIONS = {"7": "a dog on grass", "8": "two cats", "9": "a man"}


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return str(path)

    return write


def results(captions=CAPTIONS):
    return [{"image_id": int(i), "caption": text} for i, text in captions.items()]


def coco(references=REFERENCES):
    annotations = [{"id": 1, "image_id": int(i), "caption": text} for i, texts in references.items() for text in texts]
    return {"images": [{"id": int(i)} for i in references], "annotations": annotations}


def karpathy(references=REFERENCES):
    """imgid counts from 0, so that it is another id than cocoid; the last image is in the train split."""
    return {
        "images": [
            {
                "cocoid": int(i),
                "imgid": n,
                "filename": f"{i}.jpg",
                "split": "train" if n == 2 else "test",
                "sentences": [{"raw": text, "tokens": text.split()} for text in texts],
            }
            for n, (i, texts) in enumerate(references.items())
        ]
    }


def scores_of(capsys, *args):
    assert main([*args, "--json", "--no-java"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_is_one_object_with_exactly_the_scores(write, capsys):
    scores = scores_of(capsys, write("p.json", results()), write("r.json", coco()))
    assert list(scores) == list(SCORES)
    assert scores == pytest.approx(score_captions(CAPTIONS, REFERENCES))


def test_table_is_aligned_and_says_what_was_matched(write, capsys):
    assert main([write("p.json", results()), write("r.json", coco()), "--no-java"]) == 0
    first, header, line = capsys.readouterr().out.splitlines()
    assert first == "3 of 3 images scored; images matched by image_id"
    assert header.split() == [metric(key).title for key in SCORES]
    assert len(line.split()) == 1 + len(SCORES)
    assert len(header.rstrip()) == len(line.rstrip())


@pytest.mark.parametrize(
    ("key", "ids"), [("cocoid", [7, 8, 9]), ("imgid", [0, 1, 2]), ("filename", ["7.jpg", "8.jpg", "9.jpg"])]
)
def test_karpathy_file_matches_by_the_id_that_predictions_use(write, capsys, key, ids):
    predictions = [{"image_id": i, "caption": text} for i, text in zip(ids, CAPTIONS.values(), strict=True)]
    args = [write("p.json", predictions), write("r.json", karpathy())]
    assert scores_of(capsys, *args) == pytest.approx(score_captions(CAPTIONS, REFERENCES))
    main([*args, "--no-java"])
    assert f"matched by {key}" in capsys.readouterr().out


def test_split_of_a_karpathy_file(write, capsys):
    captions, references = ({i: d[i] for i in ("7", "8")} for d in (CAPTIONS, REFERENCES))
    args = [write("p.json", results(captions)), write("r.json", karpathy())]
    assert scores_of(capsys, *args, "--split", "test") == pytest.approx(score_captions(captions, references))
    with pytest.raises(UserError, match=r"--split val: not in .*r.json, which has: test, train"):
        main([*args, "--split", "val"])
    with pytest.raises(UserError, match="which has no splits"):
        main([args[0], write("coco.json", coco()), "--split", "test"])


def test_missing_predictions_are_counted_and_can_be_allowed(write, capsys):
    references = REFERENCES | {str(n): ["one more"] for n in range(20, 24)}
    args = [write("p.json", results()), write("r.json", coco(references))]
    with pytest.raises(
        UserError, match=r"no prediction for 4 of the 7 images in .*: 20, 21, 22, \.\.\.; .*--allow-missing"
    ):
        main(args)
    for flag in ("--allow-missing", "--allow_missing"):
        assert scores_of(capsys, *args, flag) == pytest.approx(score_captions(CAPTIONS, references))


def test_predictions_without_references_are_named(write):
    predictions = write("p.json", results(CAPTIONS | {"99": "a bird"}))
    with pytest.raises(UserError, match=r"1 of 4 predictions are for images without references in .*r\.json: 99;"):
        main([predictions, write("r.json", coco()), "--allow-missing"])


def test_duplicates_count_once_and_contradictions_are_named(write, capsys):
    references = write("r.json", coco())
    twice = scores_of(capsys, write("p.json", results() + results()), references)
    assert twice == pytest.approx(score_captions(CAPTIONS, REFERENCES))
    with pytest.raises(
        UserError, match=r"record 3: image 8 has two different captions \(\"two cats\" and \"a bird\"\)"
    ):
        main([write("q.json", [*results(), {"image_id": "8", "caption": "a bird"}]), references])


def test_per_image_table(write, tmp_path, capsys):
    target = tmp_path / "images.csv"
    args = [write("p.json", results()), write("r.json", coco()), "--no_java"]
    main([*args, f"--per_image={target}"])
    rows = list(csv.DictReader(target.read_text("utf-8").splitlines()))
    assert [row["image_id"] for row in rows] == list(CAPTIONS)
    assert [row["caption"] for row in rows] == list(CAPTIONS.values())
    expected = score_captions(CAPTIONS, REFERENCES)["cider_d"]
    assert sum(float(row["cider_d"]) for row in rows) / 3 == pytest.approx(expected, abs=1e-5)
    with pytest.raises(UserError, match=r"--per-image .*nowhere.* cannot be written"):
        main([*args, "--per-image", str(tmp_path / "nowhere" / "images.csv")])


GOOD_REFERENCES = coco()


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ('[{"image_id": 7,\n "caption": "a d', GOOD_REFERENCES, r"p\.json, line 2, column 13: not valid JSON"),
        ("", GOOD_REFERENCES, r"p\.json, line 1, column 1: not valid JSON"),
        (results(), '{"annotations": [', r"r\.json, line 1, column 18: not valid JSON"),
        ({"image_id": 7}, GOOD_REFERENCES, r"p\.json: expected a list of"),
        ([], GOOD_REFERENCES, r"p\.json: expected a list of .* one record or more"),
        (
            [{"image_id": 7, "text": "a"}],
            GOOD_REFERENCES,
            r"p\.json: record 0: key 'caption' is missing",
        ),
        ([{"caption": "a"}], GOOD_REFERENCES, r"p\.json: record 0: key 'image_id' is missing"),
        ([{"image_id": True, "caption": "a"}], GOOD_REFERENCES, r"record 0: 'image_id' is True, expected int or str"),
        (["a dog"], GOOD_REFERENCES, r"p\.json: record 0: expected an object"),
        (results(), [], r"r\.json: expected COCO caption JSON"),
        (results(), {"images": [], "annotations": []}, r"r\.json: has no reference captions"),
        (results(), {"annotations": [{"image_id": 7}]}, r"r\.json: annotation 0: key 'caption' is missing"),
        (results(), {"images": [{"cocoid": 7}]}, r"r\.json: image 0: key 'sentences' is missing"),
        (results(), {"images": [{"sentences": []}]}, r"r\.json: image 0: key 'cocoid' is missing"),
    ],
)
def test_broken_files_give_one_line(write, predictions, references, message):
    with pytest.raises(UserError, match=message) as error:
        main([write("p.json", predictions), write("r.json", references)])
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(write, tmp_path):
    with pytest.raises(UserError, match=r"none\.json: no such file"):
        main([str(tmp_path / "none.json"), write("r.json", coco())])
    with pytest.raises(UserError, match="is a folder; expected a file"):
        main([str(tmp_path), write("r.json", coco())])
    (tmp_path / "latin.json").write_bytes(b'["caf\xe9"]')
    with pytest.raises(UserError, match=r"latin\.json, line 1: not UTF-8 \(byte 0xe9\)"):
        main([str(tmp_path / "latin.json"), write("r.json", coco())])


def test_abbreviated_flags_are_refused(write):
    with pytest.raises(UserError, match="unrecognized arguments: --allow"):
        main([write("p.json", results()), write("r.json", coco()), "--allow"])


def test_java_scores_are_added_and_their_absence_noted_apart(write, capsys, monkeypatch):
    from metrics import java

    def scorer(predictions, references, notify):
        notify("spice is left out: a reason")
        return {"meteor": 0.25}

    monkeypatch.setattr(java, "java_scores", scorer)
    main([write("p.json", results()), write("r.json", coco()), "--json"])
    captured = capsys.readouterr()
    assert list(json.loads(captured.out)) == [*SCORES, "meteor"]
    assert captured.err == "note: spice is left out: a reason\n"


def test_nothing_heavy_is_imported(write):
    code = (
        "import sys; from commands.score import main; main(sys.argv[1:]); "
        "print(sorted({'torch', 'lightning', 'torchmetrics', 'nltk', 'pandas', 'transformers'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, write("p.json", results()), write("r.json", coco()), "--no-java"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_published_example(data_root, capsys):
    folder = data_root / "coco_eval/fakecap_val2014"
    names = ("captions_val2014_fakecap_results.json", "captions_val2014.json")
    scores = scores_of(capsys, *(str(folder / name) for name in names))
    printed = {name: round(value, 3) for name, value in scores.items()}
    assert printed == dict(zip(SCORES, (0.579, 0.404, 0.279, 0.191, 0.396, 0.6), strict=True))


@pytest.fixture
def folder(tmp_path):
    """Captions with splits for `FolderCaptions`; nobody opens the pictures."""
    rows = ["image,caption,split"]
    for number, colour in enumerate(["red", "green", "blue"] * 4):
        split = "test" if number >= 8 else "train"
        (tmp_path / f"{number}.png").touch()
        rows += [
            f"{number}.png,a {colour} square on the wall,{split}",
            f"{number}.png,one {colour} thing is there,{split}",
        ]
    (tmp_path / "captions.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def baselines_of(folder, write, captions, *options):
    test = {f"{n}.png": ["red", "green", "blue"][n % 3] for n in range(8, 12)}
    annotations = [
        {"id": 1, "image_id": name, "caption": text.format(colour)}
        for name, colour in test.items()
        for text in ("a {} square on the wall", "one {} thing is there")
    ]
    predictions = [{"image_id": name, "caption": captions.format(colour)} for name, colour in test.items()]
    files = [write("p.json", predictions), write("r.json", {"annotations": annotations})]
    return main([*files, "--no-java", "--baselines", "folder-captions", "--root", str(folder), *options])


def test_baselines_stand_beside_the_predictions_and_flag_poor_ones(folder, write, capsys):
    assert baselines_of(folder, write, "a {} square on the wall") == 0
    good = capsys.readouterr()
    assert "leave-one-out human" in good.out
    assert good.err.splitlines() == [line for line in good.err.splitlines() if "--encoder" in line], "nothing else"
    assert baselines_of(folder, write, "nothing", "--json") == 0
    poor = capsys.readouterr()
    rows = json.loads(poor.out)
    assert next(iter(rows)) == "predictions"
    assert rows["constant caption"]["cider_d"] > rows["predictions"]["cider_d"] == 0
    assert "BELOW A BASELINE: cider_d 0.000 of predictions does not beat " in poor.err
    assert "constant caption" in poor.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "val"], "COCO file, which has no splits"),
        (["--rooot", "x"], "unrecognized arguments: --rooot"),
        (["--evaluate-on", "nothing"], "evaluate_on"),
    ],
)
def test_wrong_flags_of_a_data_set(folder, write, options, message):
    with pytest.raises(UserError, match=message):
        baselines_of(folder, write, "a {}", *options)


def test_baselines_need_the_references_of_the_split(folder, write):
    predictions, references = write("p.json", results()), write("r.json", coco())
    with pytest.raises(UserError, match="not in split 'test' of 4"):
        main([predictions, references, "--no-java", "--baselines", "folder_captions", "--root", str(folder)])
    with pytest.raises(UserError, match="there is no data set 'ucn': expected one of coco"):
        main([predictions, references, "--no-java", "--baselines", "ucn"])


def test_the_old_name_of_the_option_is_read(folder, write, capsys):
    predictions, references = write("p.json", results()), write("r.json", coco())
    with pytest.raises(UserError, match="not in split 'test' of 4"):
        main([predictions, references, "--no-java", "--floors=folder_captions", "--root", str(folder)])
    assert capsys.readouterr().err == "note: --floors is now called --baselines\n"


def test_empty_references_and_odd_blanks_are_scored_as_they_stand(write, capsys):
    references = {"7": ["", "3\u00a01/2 dogs  run "], "8": ["two cats"]}
    captions = {"7": "3\u00a01/2 dogs", "8": "two cats"}
    scores = scores_of(capsys, write("p.json", results(captions)), write("r.json", coco(references)))
    assert scores == pytest.approx(score_captions(captions, references))


def test_flags_of_a_data_set_need_baselines(write):
    with pytest.raises(UserError, match="unrecognized arguments: --root x"):
        main([write("p.json", results()), write("r.json", coco()), "--root", "x"])
