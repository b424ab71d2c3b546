"""Published weights by name, through the code that loads them, from a hub on the loopback interface.

The files have the layout of the published ones and made-up values.
"""

import hashlib
import json
import logging

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
import torchvision
from efficientnet_pytorch import EfficientNet
from efficientnet_pytorch import utils as efficientnet_utils
from safetensors.torch import save_file
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, VisualBertConfig, VisualBertModel

from core.errors import UserError
from core.hub import only_local
from networks.decoders.language import build_language_model
from networks.emotion.build import build_emotion_network, load_published
from networks.encoders.build import build_encoder
from tests.genome import write_genome

BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 20}
FILES = ("pytorch_model.bin", "model.safetensors")
TIMM = "test_resnet.r160_in1k"


def write(hub, repository, config, state, file):
    folder = hub.root / repository
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    state = {name: value.contiguous() for name, value in state.items()}
    if file.endswith(".safetensors"):
        save_file(state, folder / file, metadata={"format": "pt"})
    else:
        torch.save(state, folder / file)


def made_up(network):
    """A network's state dict with values that no initialisation gives."""
    draw = np.random.default_rng(0)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    return {
        name: torch.from_numpy(draw.normal(1, 0.1, value.shape)).float() if value.is_floating_point() else value
        for name, value in state.items()
    }


# each writes the files of a published repository and returns the function that loads it and what has to be there then


def gpt2(hub, file):
    config = GPT2Config(n_layer=2, n_head=2, n_embd=8, vocab_size=20, n_positions=16, bos_token_id=0, eos_token_id=0)
    state = made_up(GPT2Model(config))
    masks = {f"h.{layer}.attn.bias": torch.ones(1, 1, 16, 16) for layer in range(2)}  # as published
    write(hub, "gpt2", {**config.to_dict(), "architectures": ["GPT2LMHeadModel"]}, {**state, **masks}, file)
    return lambda: build_language_model("gpt2", "pretrained", vocab_size=20).network, state


def gpt2_with_head(hub, file):
    load, state = gpt2(hub, file)
    whole = {f"transformer.{name}": value for name, value in state.items()}
    config = json.loads((hub.root / "gpt2" / "config.json").read_text())
    write(hub, "gpt2", config, {**whole, "lm_head.weight": state["wte.weight"].clone()}, file)
    return load, state


def bert(hub, file):
    config = BertConfig(**BERT)
    state = made_up(BertModel(config))
    old = {name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): name for name in state}
    saved = {f"bert.{name}": state[own] for name, own in old.items()}
    saved |= {"cls.predictions.bias": torch.zeros(20), "cls.seq_relationship.bias": torch.zeros(2)}
    write(hub, "google-bert/bert-base-uncased", {**config.to_dict(), "architectures": ["BertForMaskedLM"]}, saved, file)

    def load():
        network, _ = build_emotion_network(
            "bert_resnet", num_labels=3, vocab_size=20, pad_id=0, layers=2, heads=2, bert_dim=16, feature_dim=4,
            bert_sizes=config.to_diff_dict(),
        )  # fmt: skip
        load_published(network, "google-bert/bert-base-uncased")
        return network.body

    return load, state


def visual_bert(hub, file):
    config = VisualBertConfig(**BERT, visual_embedding_dim=2048)
    state = made_up(VisualBertModel(config))
    saved = {f"visual_bert.{name}": value for name, value in state.items()} | {"cls.predictions.bias": torch.zeros(20)}
    name = "uclanlp/visualbert-vqa-coco-pre"
    write(hub, name, {**config.to_dict(), "architectures": ["VisualBertForPreTraining"]}, saved, file)

    def load():
        network, _ = build_emotion_network(
            "visual_bert", num_labels=3, vocab_size=20, pad_id=0, feature_dim=2048, weights=name,
            bert_sizes={**config.to_diff_dict()},
        )  # fmt: skip
        load_published(network, name)
        return network.body

    return load, state


def detector(hub, file):
    state = write_genome(hub.root / "unc-nlp" / "frcnn-vg-finetuned", file)
    name = "unc-nlp/frcnn-vg-finetuned"
    return lambda: build_encoder("frcnn-vg", name, whole_pictures=True).network, state


def of_timm(hub, file):
    state = made_up(timm.create_model(TIMM, pretrained=False))
    write(hub, f"timm/{TIMM}", {"architecture": TIMM.partition(".")[0], "num_classes": 1000}, state, file)
    return lambda: build_encoder(f"timm/{TIMM}", "pretrained", num_outputs=1000).network, state


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("published", [gpt2, gpt2_with_head, bert, visual_bert, detector, of_timm])
def test_what_is_published_is_what_is_loaded_without_a_word(hub, published, file, capfd, caplog):
    load, state = published(hub, file)
    capfd.readouterr()
    network = load()
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    own = network.state_dict()
    assert set(state) <= set(own)
    for name, value in state.items():
        assert torch.equal(own[name], value), name
    requests = len(hub.asked)
    assert any(request.startswith("GET") and request.endswith(file) for request in hub.asked)
    load()
    assert not any(file in request for request in hub.asked[requests:] if request.startswith("GET")), "from the cache"


@pytest.mark.parametrize(("published", "gone"), [(gpt2, "ln_f.weight"), (bert, "bert.pooler.dense.weight")])
def test_weights_that_lack_a_tensor_are_refused_rather_than_random(hub, published, gone):
    load, _ = published(hub, FILES[0])
    (path,) = hub.root.rglob(FILES[0])
    state = torch.load(path, weights_only=True)
    del state[gone]
    torch.save(state, path)
    with pytest.raises(UserError) as caught:
        load()
    check_one_line(caught, "1 tensors", gone.removeprefix("bert."))


def check_one_line(caught, *parts):
    text = str(caught.value)
    assert "\n" not in text
    assert all(part in text for part in parts), text


@pytest.mark.parametrize("published", [gpt2, bert, visual_bert, detector, of_timm])
def test_other_content_than_the_hub_says_is_refused(hub, published):
    load, _ = published(hub, FILES[1])
    hub.wrong.add(FILES[1])
    with pytest.raises(UserError) as caught:
        load()
    check_one_line(caught, "is damaged: its SHA-256 begins with", "remove it and start again")


@pytest.mark.parametrize("published", [gpt2, bert, visual_bert, detector, of_timm])
def test_a_download_that_breaks_off_is_one_line_and_goes_on_later(hub, published, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    load, state = published(hub, FILES[1])
    hub.cut.add(FILES[1])
    with pytest.raises(UserError) as caught:
        load()
    check_one_line(caught, "cannot be reached; go online once")
    hub.cut.clear()
    own = load().state_dict()
    assert all(torch.equal(own[name], value) for name, value in state.items())


@pytest.mark.parametrize("published", [gpt2, bert, visual_bert, detector, of_timm])
def test_without_the_hub_the_ways_out_are_named_and_the_cache_is_enough(hub, published, monkeypatch):
    load, _ = published(hub, FILES[1])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    only_local.cache_clear()
    with pytest.raises(UserError) as caught:
        load()
    check_one_line(caught, "cannot be reached; go online once")
    assert hub.asked == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    only_local.cache_clear()
    load()
    asked = len(hub.asked)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    only_local.cache_clear()
    load()
    assert len(hub.asked) == asked


# weights by address


def advprop(hub, monkeypatch):
    state = made_up(EfficientNet.from_name("efficientnet-b0"))
    torch.save(state, hub.root / "adv-efficientnet-b0-0123abcd.pth")
    address = f"{hub.address}/adv-efficientnet-b0-0123abcd.pth"
    monkeypatch.setitem(efficientnet_utils.url_map_advprop, "efficientnet-b0", address)
    return lambda: build_encoder("efficientnet-b0", "advprop").network, state, address


def imagenet(hub, monkeypatch):
    state = made_up(torchvision.models.squeezenet1_1(weights=None))
    torch.save(state, hub.root / "squeezenet.pth")
    digest = hashlib.sha256((hub.root / "squeezenet.pth").read_bytes()).hexdigest()
    (hub.root / "squeezenet.pth").rename(hub.root / f"squeezenet1_1-{digest[:8]}.pth")
    address = f"{hub.address}/squeezenet1_1-{digest[:8]}.pth"
    weights = torchvision.models.SqueezeNet1_1_Weights.DEFAULT
    monkeypatch.setattr(weights.value, "url", address)

    def load():
        encoder = build_encoder("torchvision/squeezenet1_1", "imagenet")
        return torch.nn.ModuleDict({"features": torch.nn.Sequential(*encoder.blocks)})

    return load, {name: value for name, value in state.items() if name.startswith("features")}, address


@pytest.mark.parametrize("published", [advprop, imagenet])
def test_weights_by_address_are_loaded_and_damage_is_one_line(hub, published, monkeypatch, tmp_path):
    load, state, address = published(hub, monkeypatch)
    hub.cut.add(address.rpartition("/")[2])
    with pytest.raises(UserError) as caught:
        load()
    check_one_line(caught, "")
    left = list(tmp_path.glob("torch/hub/checkpoints/*"))
    if left:  # torch keeps what came
        with pytest.raises(UserError) as caught:
            load()
        check_one_line(caught, str(left[0]), "remove it and start again")
        left[0].unlink()
    hub.cut.clear()
    own = load().state_dict()
    assert all(torch.equal(own[name], value) for name, value in state.items())


def test_other_content_than_the_address_says_is_refused(hub, monkeypatch):
    load, _, address = imagenet(hub, monkeypatch)
    hub.wrong.add(address.rpartition("/")[2])
    with pytest.raises(UserError) as caught:
        load()
    check_one_line(caught, "cannot be reached", "invalid hash value")
