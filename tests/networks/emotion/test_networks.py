"""VisualBERT and the students: what they read, what they ignore, their blocks."""

import pytest
import torch
from transformers import VisualBertConfig, VisualBertModel

from core.errors import DataError, UserError
from networks.emotion import build
from networks.emotion.bert import bert_config, load_bert, load_word_embeddings
from networks.emotion.build import build_emotion_network, load_published
from networks.emotion.transfer import freeze
from tests.networks.emotion.emotion_batch import LABELS, make_batch, make_network

READERS = ("visual_bert", "light", "bert_resnet")
ALL = (*READERS, "text")


@pytest.mark.parametrize("architecture", ALL)
@pytest.mark.parametrize("features", [False, True])
def test_a_row_for_every_caption(architecture, features):
    network = make_network(architecture, **({"feature_dim": 7} if features else {})).eval()
    output = network(make_batch(features))
    assert output.logits.shape == (4, LABELS)
    assert output.image_index.tolist() == [0, 0, 1, 2]
    rows = output.logits.sigmoid()
    torch.testing.assert_close(output.probabilities(3)[0], rows[:2].mean(0))


@pytest.mark.parametrize("architecture", ALL)
def test_blocks_and_head_are_the_whole_network_once(architecture):
    network = make_network(architecture)
    parts = [part for _, block in network.blocks() for part in block]
    found = [id(p) for part in parts for p in part.parameters()] + [id(p) for p in network.head.parameters()]
    assert sorted(found) == sorted({id(parameter) for parameter in network.parameters()})
    if network.blocks() and architecture != "text":
        assert len({name for name, _ in network.blocks()}) == len(network.blocks())


def test_names_of_blocks():
    def names(architecture):
        return [name for name, _ in make_network(architecture).blocks()]

    assert names("visual_bert") == ["embeddings, layer 1", "layer 2", "layer 3, pooler"]
    assert names("light") == ["words, convolution 1", "GRU, convolution 2", "convolution 3", "fc1"]
    assert names("bert_resnet") == ["embeddings, layer 1", "layer 2", "layer 3, pooler", "fc1"]
    assert names("text") == ["document frequencies"]
    full = build_emotion_network(
        "visual_bert", num_labels=29, vocab_size=30522, pad_id=0, use_image=False, layers=12, heads=1, bert_dim=4
    )[0]
    assert len(full.blocks()) == 12


@pytest.mark.parametrize("architecture", READERS)
def test_padding_tokens_and_masked_regions_change_nothing(architecture):
    network = make_network(architecture, feature_dim=7).eval()
    batch = make_batch(features=True)
    expected = network(batch).logits
    batch["caption_ids"] = torch.cat([batch["caption_ids"], torch.zeros(4, 3, dtype=torch.long)], 1)
    batch["features"] = batch["features"].masked_fill(~batch["feature_mask"].unsqueeze(2), 9.0)
    torch.testing.assert_close(network(batch).logits, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", READERS)
def test_captions_and_pictures_matter(architecture):
    network, batch = make_network(architecture).eval(), make_batch()
    before = network(batch).logits
    other = {**batch, "image": batch["image"].flip(0)}
    assert not torch.allclose(network(other).logits, before)
    other = {**batch, "caption_ids": batch["caption_ids"].flip(0)}
    assert not torch.allclose(network(other).logits, before)


@pytest.mark.parametrize("architecture", READERS)
def test_captions_only_needs_no_picture_and_every_parameter_learns(architecture):
    network, batch = make_network(architecture, use_image=False), make_batch()
    del batch["image"]
    network(batch).logits.sum().backward()
    assert [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("architecture", READERS)
def test_every_parameter_that_learns_gets_a_gradient(architecture):
    network = make_network(architecture)
    network(make_batch()).logits.sum().backward()
    assert [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("architecture", READERS)
def test_gradient_checkpointing_changes_no_number(architecture):
    results = []
    for recompute in (False, True):
        torch.manual_seed(3)
        network = make_network(architecture, gradient_checkpointing=recompute, dropout=0.3).train()
        torch.manual_seed(4)
        loss = network(make_batch()).logits.square().mean()
        loss.backward()
        norms = {name: value.clone() for name, value in network.named_buffers() if "running" in name}
        results.append((loss.detach(), {n: p.grad for n, p in network.named_parameters() if p.grad is not None}, norms))
    torch.testing.assert_close(results[0], results[1])


def test_visual_tokens_have_type_one_and_full_attention():
    """VisualBERT by hand: transformers' own model on the same inputs."""
    network, batch = make_network("visual_bert", feature_dim=7).eval(), make_batch(features=True)
    index = batch["image_index"]
    body = VisualBertModel(network.body.config).eval()
    body.load_state_dict(network.body.state_dict())
    pooled = body(
        input_ids=batch["caption_ids"],
        attention_mask=(batch["caption_ids"] != 0).float(),
        visual_embeds=batch["features"][index],
        visual_attention_mask=batch["feature_mask"][index].float(),
        visual_token_type_ids=torch.ones(4, 6, dtype=torch.long),
    ).pooler_output
    torch.testing.assert_close(network(batch).logits, network.head(pooled))


def test_light_student_gives_logits_not_probabilities():
    network = make_network("light").eval()
    network.head.bias.data.fill_(5.0)
    assert network(make_batch()).logits.max() > 1


def test_picture_without_caption_is_named():
    batch = make_batch()
    batch["image_index"] = torch.tensor([0, 0, 1, 1])
    with pytest.raises(DataError, match="image 'c' has no caption"):
        make_network("light")(batch)
    batch["references"] = [["x"], [], ["y"]]
    with pytest.raises(DataError, match="image 'b' has no caption"):
        make_network("text")(batch)


def test_missing_pictures_and_contradicting_encoders_are_named():
    batch = make_batch()
    del batch["image"]
    with pytest.raises(UserError, match="use_image to false"):
        make_network("light")(batch)
    with pytest.raises(UserError, match=r"image_encoder is 'small-conv'.*null"):
        build_emotion_network(
            "visual_bert", num_labels=5, vocab_size=20, pad_id=0, image_encoder="small-conv", feature_dim=7
        )
    with pytest.raises(UserError, match=r"there is no image encoder.*use_image: false"):
        build_emotion_network("visual_bert", num_labels=5, vocab_size=20, pad_id=0, layers=1, heads=1, bert_dim=4)


@pytest.mark.parametrize(
    ("architecture", "reads"), [("light", "has convolutions of its own"), ("text", "reads captions only")]
)
def test_an_image_encoder_without_effect_is_refused(architecture, reads):
    with pytest.raises(UserError, match=f"image_encoder is 'small-conv', but architecture '{architecture}' {reads}"):
        make_network(architecture, image_encoder="small-conv")


# published weights from a local folder


@pytest.fixture
def folder(tmp_path):
    config = VisualBertConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        visual_embedding_dim=9,
    )
    torch.manual_seed(5)
    model = VisualBertModel(config)
    model.save_pretrained(tmp_path / "weights")
    return str(tmp_path / "weights"), model


def test_folder_gives_sizes_and_weights(folder):
    path, model = folder
    network, sizes = build_emotion_network(
        "visual_bert", num_labels=5, vocab_size=20, pad_id=0, weights=path, feature_dim=9
    )
    load_published(network, path)
    for name, value in model.state_dict().items():
        assert torch.equal(network.body.state_dict()[name], value), name
    again, _ = build_emotion_network(
        "visual_bert", num_labels=5, vocab_size=20, pad_id=0, weights="gone", feature_dim=9, bert_sizes=sizes
    )
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in network.named_parameters()}


@pytest.mark.parametrize("known", [True, False])
def test_regions_of_another_width_are_refused_with_the_choices(folder, monkeypatch, known):
    """When the network is built, before any feature is computed; where the width is unknown, when they are loaded."""
    path, _ = folder
    options = {"num_labels": 5, "vocab_size": 20, "pad_id": 0, "weights": path, "feature_dim": 7}
    choices = r"width 9, these have 7: set data\.init_args\.encoder to one of width 9, or .*new_projection to true"
    if not known:
        monkeypatch.setattr(build, "region_width", lambda _: None)
        network, _ = build_emotion_network("visual_bert", **options)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        with pytest.raises(UserError, match=choices):
            load_published(network, path)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        return
    with pytest.raises(UserError, match=choices) as caught:
        build_emotion_network("visual_bert", **options)
    assert "\n" not in str(caught.value)


def test_the_published_weights_are_known_to_read_2048_before_anything_is_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    published = {"num_labels": 5, "vocab_size": 30522, "pad_id": 0, "weights": "uclanlp/visualbert-vqa-coco-pre"}
    with pytest.raises(UserError, match=r"width 2048, these have 1024: .*frcnn-vg: the published detector"):
        build_emotion_network("visual_bert", **published, feature_dim=1024, layers=1)
    for others in ({"feature_dim": 2048}, {"feature_dim": 1024, "new_projection": True}, {"use_image": False}):
        build_emotion_network("visual_bert", **published, layers=1, **others)


def test_a_new_projection_is_the_only_part_that_is_new_and_is_never_frozen(folder):
    path, model = folder
    network, _ = build_emotion_network(
        "visual_bert", num_labels=5, vocab_size=20, pad_id=0, weights=path, feature_dim=7, new_projection=True
    )
    load_published(network, path)
    for name, value in model.state_dict().items():
        if "visual_projection" not in name:
            assert torch.equal(network.body.state_dict()[name], value), name
    freeze(network, None)
    learning = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    projection = "body.embeddings.visual_projection"
    assert learning == {f"{projection}.weight", f"{projection}.bias", "head.weight", "head.bias"}
    same, _ = build_emotion_network("visual_bert", num_labels=5, vocab_size=20, pad_id=0, weights=path, feature_dim=9)
    load_published(same, path)
    freeze(same, None)
    assert {name for name, value in same.named_parameters() if value.requires_grad} == {"head.weight", "head.bias"}


def test_captions_alone_need_no_projection(folder):
    path, model = folder
    network, _ = build_emotion_network(
        "visual_bert", num_labels=5, vocab_size=20, pad_id=0, weights=path, use_image=False
    )
    load_published(network, path)
    words = "embeddings.word_embeddings.weight"
    assert torch.equal(network.body.state_dict()[words], model.state_dict()[words])


def test_light_student_takes_the_word_embeddings(folder):
    path, model = folder
    network = make_network("light", word_dim=16)
    load_word_embeddings(network.words, path)
    assert torch.equal(network.words.weight, model.embeddings.word_embeddings.weight)
    with pytest.raises(UserError, match=r"are \(20, 16\), expected \(20, 12\)"):
        load_word_embeddings(make_network("light").words, path)


def test_wrong_weights_are_one_line(folder, tmp_path):
    path, _ = folder
    network = make_network("visual_bert", feature_dim=7)
    with pytest.raises(UserError, match=r"do not match: \d+ tensors differ"):
        load_bert(network.body, path)
    with pytest.raises(UserError, match="cannot be reached"):
        load_bert(network.body, "nobody/nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no readable config\.json"):
        bert_config("visual_bert", str(tmp_path / "empty"), vocab_size=20, pad_id=0)
    with pytest.raises(UserError, match="have 20 tokens, the tokenizer 30"):
        bert_config("visual_bert", path, vocab_size=30, pad_id=0)
    with pytest.raises(UserError, match="bert_dim=16 is not divisible by heads=5"):
        bert_config("bert", None, vocab_size=30, pad_id=0, bert_dim=16, heads=5)
    with pytest.raises(UserError, match="no published weights"):
        load_published(make_network("text"), path)
