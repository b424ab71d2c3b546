"""The API: answers are those of the models, mistakes are one line, and it tells nothing about this machine."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from starlette.testclient import TestClient

from commands.serving.app import Limits, build_app
from commands.serving.models import Models, named
from datamodules.scenes import SceneCaptions
from datamodules.scenes.emotions import EMOTION_NAMES
from lightning_modules import AttentionRNN, LoadedCaptioner, LoadedClassifier, PrefixClassification
from tests.nasty import NASTY

LOCAL = "http://127.0.0.1"


@pytest.fixture
def client(models):
    with TestClient(build_app(models, page=True), base_url=LOCAL, raise_server_exceptions=False) as client:
        yield client


def caption(client, content, **fields):
    return client.post("/v1/caption", files={"image": ("a.png", content)}, data=fields)


@pytest.mark.parametrize("choices", [{}, {"num_captions": 3}, {"beams": 2, "num_captions": 2}])
def test_captions_are_those_of_the_captioner(client, models, images, files, choices):
    model = models.loaded["rnn"]
    for image, content in zip(images, files, strict=True):
        answer = caption(client, content, **choices).json()
        expected = model.caption(image, model.decoding(**choices))[0]
        assert [one["text"] for one in answer["captions"]] == [text for text, _ in expected]
        assert [one["log_prob"] for one in answer["captions"]] == pytest.approx([score for _, score in expected])


def test_requests_at_once_share_batches_and_get_what_they_get_alone(models, files):
    with TestClient(build_app(models, Limits(max_wait=0.2)), base_url=LOCAL) as client:
        alone = [caption(client, content).json() for content in files]
        with ThreadPoolExecutor(len(files)) as pool:
            together = list(pool.map(lambda content: caption(client, content).json(), files))
        sizes = client.app.state.service.meters.text().decode()
    for one, other in zip(alone, together, strict=True):
        assert [row["text"] for row in one["captions"]] == [row["text"] for row in other["captions"]]
        assert one["captions"][0]["log_prob"] == pytest.approx(other["captions"][0]["log_prob"], abs=1e-4)
    counts = {
        line.split()[0]: float(line.split()[1])
        for line in sizes.splitlines()
        if "batch_size_" in line and line[0] != "#"
    }
    assert counts["captioners_batch_size_sum"] == 2 * len(files)
    assert counts["captioners_batch_size_count"] < 2 * len(files)


def test_samples_depend_on_their_seed_alone(models, files):
    with TestClient(build_app(models, Limits(max_wait=0.1)), base_url=LOCAL) as client:
        ask = {"sample": True, "num_captions": 3, "top_p": 1, "temperature": 2, "seed": 5}
        alone = caption(client, files[0], **ask).json()
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda _: caption(client, files[0], **ask).json(), range(4)))
        assert all(one == alone for one in together)
        assert caption(client, files[0], **{**ask, "seed": 6}).json() != alone


def test_attention_is_one_map_a_word_and_sums_to_one(client, models, images, files):
    answer = caption(client, files[0], attention=True).json()
    words, maps = models.loaded["rnn"].attention(images[0])[0]
    assert [one["word"] for one in answer["attention"]] == words
    for one, expected in zip(answer["attention"], maps, strict=True):
        assert math.fsum(map(math.fsum, one["map"])) == pytest.approx(1, abs=1e-5)
        assert [cell for row in one["map"] for cell in row] == pytest.approx(expected.flatten().tolist(), abs=1e-6)
    assert answer["seen"].startswith("data:image/jpeg;base64,")
    assert caption(client, files[0]).json()["attention"] is None


def test_labels_are_those_of_the_classifier(client, models, images, files):
    model = models.loaded["labels"]
    answer = client.post("/v1/label", files={"image": ("a.png", files[0])}).json()
    expected = dict(zip(model.label_names, model.label(images[0])[0].tolist(), strict=True))
    assert {one["name"]: one["probability"] for one in answer["labels"]} == pytest.approx(expected)
    assert all(one["predicted"] == (one["probability"] >= model.threshold) for one in answer["labels"])
    probabilities = [one["probability"] for one in answer["labels"]]
    assert probabilities == sorted(probabilities, reverse=True)
    text = client.post("/v1/label", data={"model": "text", "text": "a red circle"}).json()
    model = models.loaded["text"]
    expected = dict(zip(model.label_names, model.label(texts="a red circle")[0].tolist(), strict=True))
    assert {one["name"]: one["probability"] for one in text["labels"]} == pytest.approx(expected)


def test_a_classifier_of_beginnings_reads_captions_and_the_page_says_what_it_does():
    data = SceneCaptions(num_train=8, num_val=2, num_test=2, feelings=True, captions_only=True)
    module = PrefixClassification.for_data(data, word_dim=8, hidden_dim=8)
    module.inference = {"method": module.method, **data.describe()}
    served = Models({"feelings": LoadedClassifier(module)})
    with TestClient(build_app(served, page=True), base_url=LOCAL) as client:
        answer = client.post("/v1/label", data={"text": "how gloomy, a red circle"}).json()
        (facts,) = client.get("/v1/models").json()
        page = client.get("/").text
    assert math.fsum(one["probability"] for one in answer["labels"]) == pytest.approx(1, abs=1e-5)
    assert [one["predicted"] for one in answer["labels"]] == [True] + [False] * 7
    assert answer["threshold"] is None
    assert (facts["reads_images"], facts["reads_text"]) == (False, True)
    said = "Says which one of 8 labels (amusement, awe, contentment, excitement, anger, disgust, ...) a caption has"
    assert facts["about"] == f"{said}; can guide captioners (caption --control)."
    assert facts["about"] in page


@pytest.fixture(scope="module")
def conditioned():
    """A captioner that knows emotions, and cares for them."""
    data = SceneCaptions(num_train=8, num_val=2, num_test=2, feelings=True)
    torch.manual_seed(0)
    module = AttentionRNN.for_data(data, image_encoder="small-conv", unfreeze_epoch=0, hidden_dim=16, conditioned=True)
    torch.nn.init.normal_(module.captioner.conditions.weight, std=9.0)
    decoding = {"max_tokens": 6}
    module.inference = {"method": module.method, **data.describe(), "decoding": decoding}
    return LoadedCaptioner(module)


def test_captions_can_be_asked_for_an_emotion(conditioned, models, images, files):
    served = Models({"plain": models.loaded["rnn"], "feels": conditioned})
    with TestClient(build_app(served, page=True), base_url=LOCAL) as client:
        asked = [caption(client, files[0], model="feels", emotion=name).json() for name in ("", "awe", "fear")]
        wrong = [caption(client, files[0], model=name, emotion="aw").json()["detail"] for name in ("feels", "plain")]
        page = client.get("/").text
        facts = client.get("/v1/models").json()
    expected = [conditioned.caption(images[0], emotion=name)[0][0][0] for name in (None, "awe", "fear")]
    assert [answer["captions"][0]["text"] for answer in asked] == expected
    assert len(set(expected)) == 3
    assert "emotion is 'aw' (did you mean awe?)" in wrong[0]
    assert "trained without emotions" in wrong[1]
    assert [one["emotions"] for one in facts] == [[], list(EMOTION_NAMES)]
    assert facts[1]["about"].startswith("Writes captions, which can be asked for one of 8 labels (amusement, ")
    assert page.count("<option") == 9


def test_every_model_says_what_it_does(models):
    assert {facts.name: facts.about for facts in models.facts()} == {
        "rnn": "Writes captions.",
        "labels": f"Says which of {named(models.loaded['labels'].label_names)} an image has.",
        "text": f"Says which of {named(models.loaded['text'].label_names)} a caption has.",
    }


@pytest.mark.parametrize(
    ("path", "content", "fields", "said"),
    [
        ("caption", b"no image", {}, "the upload: image cannot be decoded"),
        ("caption", b"", {}, "the upload: image cannot be decoded"),
        ("caption", "PNG", {"model": "other"}, "there is no captioner 'other': expected one of rnn"),
        ("caption", "PNG", {"model": "labels"}, "there is no captioner 'labels'"),
        ("caption", "PNG", {"beams": 1000}, "less than or equal to 32"),
        ("caption", "PNG", {"beams": 2, "num_captions": 3}, "num_captions"),
        ("caption", "PNG", {"temperature": "nan", "sample": True}, "less than or equal to 10"),
        ("caption", "PNG", {"top_p": 0}, "greater than 0"),
        ("caption", None, {}, "required"),
        ("label", None, {}, "'labels' reads images: send one as the field 'image'"),
        ("label", "PNG", {"model": "text"}, "'text' reads captions: send one as the field 'text'"),
        ("label", "PNG", {"model": "rnn"}, "there is no classifier 'rnn'"),
        ("label", None, {"model": "text", "text": "x" * 10_001}, "at most 10000 characters"),
    ],
)
def test_mistakes_take_one_line(client, files, path, content, fields, said):
    upload = None if content is None else {"image": ("a.png", files[0] if content == "PNG" else content)}
    answer = client.post(f"/v1/{path}", files=upload, data=fields)
    assert answer.status_code == 422
    detail = answer.json()["detail"]
    assert said in (detail if isinstance(detail, str) else " ".join(one["msg"] for one in detail))


def test_a_truncated_file_is_refused_and_the_server_lives(client, files):
    assert caption(client, files[0][: len(files[0]) // 2]).status_code == 422
    assert caption(client, files[0]).status_code == 200


def test_an_upload_that_is_too_large_is_refused_while_it_arrives(models, files):
    with TestClient(build_app(models, Limits(max_upload=10_000)), base_url=LOCAL) as client:
        assert caption(client, b"\0" * 20_000).status_code == 413

        sent = 0

        def pieces():
            nonlocal sent
            for _ in range(1000):
                sent += 1000
                yield b"\0" * 1000

        answer = client.post(
            "/v1/caption", content=pieces(), headers={"content-type": "multipart/form-data; boundary=x"}
        )
        assert answer.status_code in (400, 413)
        assert client.get("/health").status_code == 200


def test_only_names_of_this_machine_are_answered(models):
    app = build_app(models, page=True)
    with TestClient(app, base_url="http://evil.example") as client:
        assert client.get("/").status_code == 400
        assert client.get("/v1/models").status_code == 400


def test_an_error_inside_is_not_told(client, models, files, monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("/home/somebody/secret")

    monkeypatch.setattr(models.loaded["rnn"], "caption", fails)
    answer = caption(client, files[0])
    assert answer.status_code == 500
    assert "secret" not in answer.text
    monkeypatch.undo()
    assert caption(client, files[0]).status_code == 200


def test_health_schema_and_metrics(client, files):
    assert client.get("/health").json() == {"status": "ok", "models": ["rnn", "labels", "text"]}
    schema = client.get("/openapi.json").json()
    assert {"/v1/caption", "/v1/label", "/v1/models", "/health", "/metrics"} == set(schema["paths"])
    caption(client, files[0])
    caption(client, b"")
    for number in range(3):
        client.get(f"/nothing/{number}")
    lines = client.get("/metrics").text.splitlines()
    assert 'captioners_requests_total{path="/v1/caption",status="200"} 1.0' in lines
    assert 'captioners_requests_total{path="/v1/caption",status="422"} 1.0' in lines
    assert 'captioners_requests_total{path="other",status="404"} 3.0' in lines


def test_page_needs_nothing_else_and_says_nothing_about_folders(client, models):
    answer = client.get("/")
    assert "http://" not in answer.text
    assert "https://" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert all(name in answer.text for name in models.loaded)


@pytest.mark.parametrize("text", NASTY)
def test_names_of_models_are_text(models, text):
    from reporting.page import render_demo

    facts = {**models.facts()[0].model_dump(), "name": text}
    page = render_demo([facts], max_upload=1, most=3)
    assert "<script>alert" not in page
    inside = page.split('<script type="application/json" id="facts">')[1].split("</script>")[0]
    assert json.loads(inside)["models"][0]["name"] == text


def test_without_the_page_there_is_only_the_api(models):
    with TestClient(build_app(models), base_url=LOCAL) as client:
        assert client.get("/").status_code == 404
