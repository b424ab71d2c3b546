import csv
import json
import re

import pytest

from core.errors import DataError
from datamodules.readers.caption_files import read_records
from datamodules.readers.records import Columns, Problem, caption_texts


def coco(images=((1, "a.jpg"), (2, "b.jpg")), annotations=((10, 1, "A dog."), (11, 2, "A cat."))):
    return {
        "images": [{"id": number, "file_name": name} for number, name in images],
        "annotations": [{"id": own, "image_id": image, "caption": text} for own, image, text in annotations],
    }


def karpathy(*images):
    return {
        "images": [
            {"filename": name, "split": split, "imgid": number, "sentences": sentences}
            for number, (name, split, sentences) in enumerate(images)
        ]
    }


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def captions(path, **options):
    return {record.image_name: list(record.captions) for record in read_records(path, **options)}


def fails(path, *parts, **options):
    """The file fails with one line that holds the file's name and the parts."""
    with pytest.raises(DataError) as caught:
        read_records(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for part in (path.name, *parts):
        assert part in message
    return message


EXPECTED = {"a.jpg": ["A dog, runs.", "Dog"], "b.jpg": ["Ein Bär 熊 \N{BEAR FACE}"]}
TABLE = 'image,caption\na.jpg,"A dog, runs."\na.jpg,Dog\nb.jpg,Ein Bär 熊 \N{BEAR FACE}\n'
LINES = [{"image": "a.jpg", "caption": ["A dog, runs.", "Dog"]}, {"image": "b.jpg", "caption": EXPECTED["b.jpg"][0]}]


@pytest.mark.parametrize(
    "content",
    [
        TABLE,
        "\ufeff" + TABLE,
        TABLE.replace("\n", "\r\n"),
        TABLE.replace("image,caption\n", ""),
        TABLE.replace("image,caption", "File Name,Sentence"),
        "image\tcaption\na.jpg\tA dog, runs.\na.jpg\tDog\nb.jpg\tEin Bär 熊 \N{BEAR FACE}\n",
        'id;path;text\n1;a.jpg;"A dog, runs."\n2;a.jpg;Dog\n\n3;b.jpg;Ein Bär 熊 \N{BEAR FACE}',
        "image_name| number| comment\na.jpg| 0| A dog, runs.\na.jpg| 1| Dog\nb.jpg| 0| Ein Bär 熊 \N{BEAR FACE}",
        'image,captions\na.jpg,"[""A dog, runs."", ""Dog""]"\nb.jpg,"[""Ein Bär 熊 \N{BEAR FACE}""]"\n',
        "\n".join(json.dumps(line) for line in LINES),
        "\ufeff" + "\n\n".join(json.dumps(line, ensure_ascii=False) for line in LINES) + "\n",
        json.dumps(LINES),
        json.dumps(LINES, indent=2),
        coco(annotations=((1, 1, " A dog,\n runs."), (2, 2, EXPECTED["b.jpg"][0]), (3, 1, "Dog  "))),
        json.dumps(coco(annotations=((1, 1, "A dog, runs."), (2, 2, EXPECTED["b.jpg"][0]), (3, 1, "Dog"))), indent=1),
        karpathy(
            ("a.jpg", "train", [{"raw": "A dog,  runs."}, {"tokens": ["Dog"]}]),
            ("b.jpg", "test", [{"raw": EXPECTED["b.jpg"][0]}]),
        ),
        "\n".join(
            json.dumps({"file_name": name, "sentences": [{"raw": text} for text in texts]})
            for name, texts in EXPECTED.items()
        ),
        '{"img":"a.jpg","text":["A dog, runs.", "Dog"]}\n{"img": "./b.jpg", "text": "Ein B\\u00e4r 熊 \N{BEAR FACE}"}',
    ],
)
def test_every_format_is_told_by_its_content_and_read_alike(write, content):
    assert captions(write("captions.data", content)) == EXPECTED


def test_a_quoted_table_survives_what_the_csv_module_writes(tmp_path):
    texts = ['He said "hi", twice', "two\nlines", " ends ", "a;b\tc|d", "[not a list]"]
    with (tmp_path / "c.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [["image", "caption"], *[[f"{index}.jpg", text] for index, text in enumerate(texts)]]
        )
    read = captions(tmp_path / "c.csv")
    assert [texts[0] for texts in read.values()] == [" ".join(text.split()) for text in texts]


def test_ids_are_those_of_the_source_or_the_path(write):
    assert [record.image_id for record in read_records(write("a.json", coco()))] == [1, 2]
    data = karpathy(("a.jpg", "train", [{"raw": "x"}]), ("b.jpg", "val", [{"raw": "y"}]))
    assert [record.image_id for record in read_records(write("b.json", data))] == [0, 1]
    for image, number in zip(data["images"], (391895, 522418), strict=True):
        image["cocoid"], image["filepath"] = number, "val2014"
    records = read_records(write("c.json", data))
    assert [(record.image_id, record.image_name) for record in records] == [
        (391895, "val2014/a.jpg"),
        (522418, "val2014/b.jpg"),
    ]
    assert [record.image_id for record in read_records(write("d.csv", "image,caption\nsub\\a.jpg,x\n"))] == [
        "sub/a.jpg"
    ]


def test_splits_are_read_in_their_usual_spellings(write):
    rows = [("a.jpg", "training"), ("b.jpg", "Validation"), ("c.jpg", "dev"), ("d.jpg", "TEST"), ("e.jpg", "")]
    text = "image,caption,split\n" + "\n".join(f"{name},x,{split}" for name, split in rows)
    assert [record.split for record in read_records(write("a.csv", text))] == ["train", "val", "val", "test", None]
    message = fails(
        write("b.csv", "image,caption,split\na.jpg,x,holdout\n"), "line 2", "'holdout'", "expected one of train"
    )
    assert "restval" in message
    fails(write("c.csv", "image,caption,split\na.jpg,x,train\na.jpg,y,test\n"), "line 3", "line 2", "one split")


def test_columns_can_be_named(write):
    text = "image,caption,besser\na.jpg,bad,good\n"
    assert captions(write("a.csv", text), columns=Columns(caption="besser")) == {"a.jpg": ["good"]}
    fails(
        write("b.csv", text),
        "'best'",
        "columns: image, caption, besser",
        "caption_column",
        columns=Columns(caption="best"),
    )
    fails(write("c.csv", "foo,bar\n1,2\n"), "no column for the image", "columns: foo, bar", "image_column")
    fails(write("d.csv", "image,foo\n1,2\n"), "no column for the caption", "caption_column")
    fails(write("e.csv", "image,caption,caption\na.jpg,x,y\n"), "more than one column is called 'caption'")
    fails(write("f.jsonl", '{"pfad": "a.jpg", "caption": "x"}\n{}'), "line 1", "no column for the image")


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("gone.json", None, ["no such file"]),
        ("empty.csv", "", ["the file is empty"]),
        ("header.csv", "image,caption\n", ["no usable record"]),
        ("latin.csv", "image,caption\na.jpg,Bär\n".encode("latin-1"), ["line 2", "0xe4", "save the file as UTF-8"]),
        ("wide.csv", "image,caption\n".encode("utf-16"), ["line 1", "UTF-16"]),
        (
            "ragged.csv",
            "image,caption\na.jpg,x\nb.jpg,A dog, runs\n",
            ["line 3", "3 cells, expected 2", "double quotes"],
        ),
        ("quote.csv", 'image,caption\na.jpg,x\nb.jpg,"A dog\n', ["line 3", "unexpected end", "double quotes"]),
        ("blank.csv", "image,caption\na.jpg,x\nb.jpg,  \n", ["line 3", "b.jpg is empty"]),
        ("name.csv", "image,caption\n ,x\n", ["line 2", "the image's name"]),
        ("many.csv", 'image,caption\n\na.jpg,"two\nlines"\nb.jpg,\n', ["line 5", "b.jpg is empty"]),
        ("cut.json", json.dumps(coco())[:-20], ["cut off", "line 1, column"]),
        ("cut2.json", json.dumps(coco(), indent=1)[:60], ["cut off", "line 7"]),
        ("comma.json", '{"images": [], "annotations": [1,]}', ["line 1, column 34", "correct the file"]),
        ("other.json", '{"info": 1,\n "data": 2}', ["keys info, data", "expected COCO"]),
        ("number.json", "[1, 2]", ["record 0", "expected an object"]),
        ("none.json", {"images": [], "annotations": []}, ["no usable record"]),
        ("noimages.json", {"annotations": []}, ["list 'images'"]),
        ("boxes.json", {**coco(), "annotations": [{"id": 1, "image_id": 1, "bbox": []}]}, ["captions_*.json"]),
        ("key.json", {**coco(), "annotations": [{"id": 7, "image_id": 1}]}, ["annotation 7", "'caption' is missing"]),
        ("key2.json", {"images": [{"id": 5}], "annotations": []}, ["image 5", "'file_name' is missing"]),
        ("type.json", coco(images=((1, 2),)), ["image 1", "'file_name' is 2, expected str"]),
        ("stray.json", coco(annotations=((9, 3, "x"),)), ["annotation 9", "image_id 3 is not in the list of images"]),
        ("twice.json", coco(images=((1, "a.jpg"), (1, "b.jpg"))), ["image 1", "twice"]),
        ("twice2.json", coco(annotations=((9, 1, "x"), (9, 2, "y"))), ["annotation 9", "twice"]),
        ("text.json", coco(annotations=((9, 1, " \n"), (8, 2, "y"))), ["annotation 9", "caption is empty"]),
        ("bare.json", coco(annotations=((9, 1, "x"),)), ["image 2 (b.jpg)", "has no caption"]),
        ("k1.json", karpathy(("a.jpg", "train", [])), ["image a.jpg", "has no caption"]),
        ("k2.json", karpathy(("a.jpg", "train", [{"raw": " ", "sentid": 4}])), ["a.jpg, sentence 4", "is empty"]),
        ("k3.json", karpathy(("a.jpg", "train", ["x"])), ["a.jpg, sentence number 0", "expected an object with 'raw'"]),
        ("k4.json", karpathy(*[("a.jpg", "train", [{"raw": "x"}])] * 2), ["file name 'a.jpg' is there twice"]),
        ("k5.json", karpathy(("a.jpg", "tst", [{"raw": "x"}])), ["image a.jpg", "split is 'tst'"]),
        (
            "k6.json",
            karpathy(*[(name, "train", [{"raw": "x", "sentid": 1}]) for name in ("a.jpg", "b.jpg")]),
            ["b.jpg, sentence 1", "twice"],
        ),
        ("l1.jsonl", '{"image": "a.jpg", "caption": "x"}\n{"image": "b.jpg", "capt', ["line 2", "not valid JSON"]),
        ("l2.jsonl", '{"image": "a.jpg", "caption": "x"}\n{"image": "b.jpg"}', ["line 2", "'caption' is missing"]),
        ("l3.jsonl", '{"image": "a.jpg", "caption": 3}\n', ["line 1", "the caption is 3", "a list of strings"]),
        ("l4.jsonl", '{"image": "a.jpg", "caption": []}\n', ["line 1", "is empty"]),
        ("l5.jsonl", '{"image": "a.jpg", "caption": "x"}\n7\n', ["line 2", "expected an object"]),
    ],
)
def test_each_defect_is_one_line_with_file_record_and_way_out(write, tmp_path, name, content, parts):
    path = tmp_path / name if content is None else write(name, content)
    fails(path, *parts)


def test_a_collector_sees_all_defects_and_keeps_the_rest(write):
    data = coco(
        images=((1, "a.jpg"), (1, "again.jpg"), (2, "b.jpg"), (3, "c.jpg")),
        annotations=((1, 1, "A dog."), (1, 1, "copy"), (2, 9, "stray"), (3, 2, ""), (4, 3, "A cat.")),
    )
    problems: list[Problem] = []
    records = read_records(write("a.json", data), report=problems.append)
    assert [record.image_name for record in records] == ["a.jpg", "c.jpg"]
    assert [problem.kind for problem in problems] == ["duplicate", "duplicate", "record", "empty", "empty"]
    text = 'image,caption\na.jpg,x\nb.jpg,\n,y\nc.jpg,x,y\nd.jpg,"[]"\n'
    problems.clear()
    assert captions(write("a.csv", text), report=problems.append) == {"a.jpg": ["x"]}
    assert [re.findall(r"line (\d)", problem.message)[0] for problem in problems] == ["3", "4", "5", "6"]


def test_ids_match_by_their_text(write):
    data = coco(images=((1, "a.jpg"),), annotations=((1, "1", "A dog."),))
    assert captions(write("a.json", data)) == {"a.jpg": ["A dog."]}


def test_what_counts_as_captions():
    assert caption_texts([{"caption": "a"}, "b "]) == ["a", "b"]
    assert caption_texts({"tokens": ["A", "dog"]}) == ["A dog"]
    assert caption_texts("[A] dog") == ["[A] dog"]
    assert caption_texts("[1, 2]") == ["[1, 2]"]
    for other in (None, 3, [1], {"x": 1}, [["a"]]):
        assert caption_texts(other) is None


@pytest.mark.parametrize(
    ("name", "images", "number", "longest"),
    [
        ("coco_mini/annotations/captions_train2017.json", 80, 400, 41),
        ("coco_mini/annotations/captions_val2017.json", 41, 205, None),
        ("coco_eval/captions_val2017.json", 4882, 24424, None),
        ("ucm/dataset.json", 1400, 7000, None),
        ("sydney/dataset.json", 613, 3065, None),
        ("flickr8k/captions.txt", 650, 3250, None),
        ("socratis/cleaned_data.csv", 2065, 2065, 162),
    ],
)
def test_real_files_have_the_documented_numbers(data_root, name, images, number, longest):
    records = read_records(data_root / name)
    texts = [text for record in records for text in record.captions]
    assert (len(records), len(texts)) == (images, number)
    assert all(text == " ".join(text.split()) and text for text in texts)
    if longest:
        assert max(len(text.split()) for text in texts) == longest
