"""Laws of adapters in a language model: what learns, what checkpoints hold, what they come back as."""

import shutil

import pytest
import torch
from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaModel
from transformers.pytorch_utils import Conv1D

import cli
from core.checkpoints import load_values, read_checkpoint
from core.errors import UserError
from datamodules.scenes import SceneCaptions
from lightning_modules import DualTransfer, load_captioner
from lightning_modules.loading import load_module
from networks.decoders.adapters import is_adapter
from networks.decoders.language import GPT2_SIZES, build_language_model
from networks.layers.int8 import Int8Linear
from tests.conftest import ROOT

BASE = "captioner.language.network."
SMALL = {"image_encoder": "small-conv", "image_weights": None}


def write_gpt2(folder, seed=0):
    torch.manual_seed(seed)
    config = GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=20, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    GPT2Model(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_gpt2(tmp_path_factory.mktemp("weights") / "gpt2")


@pytest.fixture(scope="module")
def data():
    return SceneCaptions(num_train=8, num_val=4, num_test=4, batch_size=4, num_workers=0)


def train(weights, folder, epochs):
    """A run of three steps an epoch."""
    options = {"language_weights": weights, "language_model": weights, "lora_rank": 4, "lora_dropout": 0.1,
               "lr": 0.05, "language_layers": "null", "language_heads": "null", "language_dim": "null",
               "warmup_steps": 0, "schedule": "constant"}  # fmt: skip
    counts = {"num_train": 24, "num_val": 4, "num_test": 4, "batch_size": 8, "num_workers": 0}
    words = [f"--model.init_args.{name}={value}" for name, value in options.items()]
    words += [f"--data.init_args.{name}={value}" for name, value in counts.items()]
    command = [
        "fit",
        "--config",
        "experiments/offline/dual_transfer.yaml",
        "--wandb=off",
        f"--trainer.max_epochs={epochs}",
    ]
    assert cli.main([*command, *words, "--trainer.callbacks=[]", f"--run_dir={folder}"]) in (0, None)
    return folder


@pytest.fixture(scope="module")
def run(weights, tmp_path_factory):
    return train(weights, tmp_path_factory.mktemp("runs") / "run", 1)


def make(data, weights, **options):
    torch.manual_seed(0)
    options = {"language_model": weights, "language_weights": weights, "dropout": 0.0} | SMALL | options
    module = DualTransfer.for_data(data, **options)
    if not module.language_is_loaded:
        module.load_pretrained()
    return module


def test_an_adapted_model_starts_as_the_model_that_it_was(data, weights):
    batch = next(iter(data.train_dataloader()))
    outputs = [
        make(data, weights, lora_rank=rank).eval().teacher_forced(batch)[1].logits for rank in (0, 4)
    ]  # fmt: skip
    assert torch.equal(*outputs)


def test_adapters_learn_at_the_rate_of_new_parts_and_the_model_stays(data, weights):
    module = make(data, weights, lora_rank=4)
    new, pretrained = module.parameter_groups()[:2]
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    assert any(is_adapter(names[id(parameter)]) for parameter in new.parameters)
    assert not any(BASE in names[id(parameter)] for parameter in pretrained.parameters)
    learning = [parameter for group in (new, pretrained) for parameter in group.parameters]
    before = {name: value.clone() for name, value in module.state_dict().items() if name.startswith(BASE)}
    optimizer = torch.optim.SGD(learning, lr=0.5)
    for _ in range(2):  # the second matrix of an adapter is zero at first, so the first one waits a step
        optimizer.zero_grad()
        module.step_loss(next(iter(data.train_dataloader())))[0].backward()
        optimizer.step()
    after = module.state_dict()
    for name, value in before.items():
        assert torch.equal(value, after[name]) is not is_adapter(name), name


def test_a_checkpoint_has_the_adapters_alone_and_comes_back_whole(run, weights):
    saved = load_values(run / "checkpoints" / "last.ckpt")["state_dict"]
    of_model = [name for name in saved if name.startswith(BASE)]
    assert of_model
    assert all(is_adapter(name) for name in of_model)
    module = load_captioner(run).module
    tokens = {"vocab_size": module.vocab_size, "bos_id": module.bos_id, "eos_id": module.eos_id}
    plain = build_language_model(weights, weights, **tokens)
    own = module.state_dict()
    assert torch.equal(own[BASE + "h.1.mlp.c_fc.base_layer.weight"], plain.network.h[1].mlp.c_fc.weight)
    moved = own[BASE + "h.1.mlp.c_fc.lora_B.default.weight"]
    assert torch.equal(moved, saved[BASE + "h.1.mlp.c_fc.lora_B.default.weight"])
    assert moved.abs().max() > 0


def test_a_run_that_goes_on_ends_with_the_same_bits_and_is_tested(run, weights, tmp_path):
    config = ["--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints" / "last.ckpt")]
    assert cli.main(["fit", *config, "--trainer.max_epochs=2", f"--run_dir={tmp_path / 'more'}"]) in (0, None)
    train(weights, tmp_path / "whole", 2)
    more, whole = (load_values(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("more", "whole"))
    assert more["global_step"] == whole["global_step"] == 6
    assert more["state_dict"].keys() == whole["state_dict"].keys()
    assert all(torch.equal(value, whole["state_dict"][name]) for name, value in more["state_dict"].items())
    assert cli.main(["test", "--ckpt_path", str(run), f"--run_dir={tmp_path / 'test'}"]) in (0, None)
    assert (tmp_path / "test" / "metrics.json").is_file()


def test_other_weights_beside_the_adapters_are_noticed(run, weights, tmp_path):
    kept = tmp_path / "kept"
    shutil.copytree(weights, kept)
    try:
        write_gpt2(weights, seed=1)
        with pytest.raises(UserError, match="are not those beside which the adapters of this checkpoint have learnt"):
            load_captioner(run)
        shutil.rmtree(weights)
        with pytest.raises(UserError, match="language weights"):
            load_captioner(run)
    finally:
        shutil.rmtree(weights, ignore_errors=True)
        shutil.copytree(kept, weights)
    assert read_checkpoint(run)["inference"]["adapted_weights"]
    load_captioner(run)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_decoding_step_by_step_is_reading_at_once(dtype, weights):
    model = build_language_model(weights, weights, vocab_size=24)
    model.adapt(rank=3, dtype=dtype)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            parameter.data.normal_()
    model.eval()
    ids = torch.randint(24, (3, 6))
    read, state, steps = model.hidden(ids), None, []
    for place in range(6):
        hidden, state = model.cached_step(ids[:, place], state)
        steps.append(hidden)
    assert read.dtype == model.logits(read).dtype == torch.float32
    torch.testing.assert_close(
        torch.stack(steps, 1), read, **({} if dtype == "float32" else {"rtol": 0.1, "atol": 0.1})
    )


def test_reduced_weights_take_half_and_score_nearly_the_same(data, weights):
    batch = next(iter(data.train_dataloader()))
    whole, half = (make(data, weights, lora_rank=4, language_dtype=dtype).eval() for dtype in ("float32", "bfloat16"))
    first, second = (module.step_loss(batch)[0] for module in (whole, half))
    assert abs(first - second) < 0.02 * first
    sizes = [sum(value.nbytes for value in module.frozen_weights().values()) for module in (whole, half)]
    assert sizes[0] == 2 * sizes[1]
    second.backward()
    named = dict(half.named_parameters())
    assert all(named[name].grad.dtype == torch.float32 for name in named if is_adapter(name))


@pytest.mark.parametrize("kind", ["linear", "transposed"])
def test_a_layer_in_8_bits_is_the_layer_but_for_rounding(kind):
    """Outputs, gradients of the inputs, and what its state dict brings back; weights are off by half a step at most."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(12, 7) if kind == "linear" else Conv1D(7, 12)
    torch.nn.init.normal_(layer.weight)
    small = Int8Linear(layer)
    full = small.weight * small.weight_scale
    assert ((full - layer.weight).abs() <= small.weight_scale / 2 + 1e-6).all()
    assert small.weight.dtype == torch.int8
    assert small.weight_scale.numel() == 7
    whole = [torch.randn(3, 5, 12).requires_grad_() for _ in range(1)] * 2
    outputs = [module(one) for module, one in zip((layer, small), whole, strict=True)]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0.02, atol=0.1)
    gradients = [torch.autograd.grad(out.square().sum(), one)[0] for out, one in zip(outputs, whole, strict=True)]
    assert torch.nn.functional.cosine_similarity(*(one.flatten() for one in gradients), dim=0) > 0.999
    other = Int8Linear(torch.nn.Linear(12, 7) if kind == "linear" else Conv1D(7, 12))
    for state in (layer.state_dict(), small.state_dict()):
        other.load_state_dict(state)
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in small.state_dict().items())


def test_weights_in_8_bits_score_nearly_the_same(data, weights, tmp_path):
    batch = next(iter(data.train_dataloader()))
    whole, small = (make(data, weights, lora_rank=4, language_dtype=dtype).eval() for dtype in ("float32", "int8"))
    first, second = (module.step_loss(batch)[0] for module in (whole, small))
    assert abs(first - second) < 0.02 * first
    linear = sum(value.numel() for name, value in small.frozen_weights().items() if value.dtype == torch.int8)
    assert linear == sum(part.weight.numel() for part in small.modules() if isinstance(part, Int8Linear)) > 0
    second.backward()
    named = dict(small.named_parameters())
    assert all(named[name].grad is not None for name in named if is_adapter(name))
    again = make(data, weights, lora_rank=4, language_dtype="int8").eval()
    frozen = small.frozen_weights()
    assert all(torch.equal(value, frozen[name]) for name, value in again.frozen_weights().items())
    checkpoint = {"state_dict": small.state_dict(), "hyper_parameters": dict(small.hparams)}
    small.inference = {"method": small.method, **data.describe()}
    small.on_save_checkpoint(checkpoint)
    assert not [name for name in checkpoint["state_dict"] if name in frozen]
    torch.save(checkpoint, tmp_path / "small.ckpt")
    loaded = load_module(tmp_path / "small.ckpt")
    assert torch.equal(loaded.step_loss(batch)[0], second)


def test_other_models_of_transformers_are_adapted(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaModel(LlamaConfig(vocab_size=20, **sizes)).save_pretrained(tmp_path / "llama")
    model = build_language_model(str(tmp_path / "llama"), str(tmp_path / "llama"), vocab_size=22)
    ids = torch.randint(22, (2, 5))
    before = model.eval().hidden(ids)
    model.adapt(rank=2)
    torch.testing.assert_close(model.hidden(ids), before)
    assert sum(is_adapter(name) for name, _ in model.named_parameters()) == 2 * 7  # q, k, v, o, gate, up, down


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora_rank": -1}, "lora_rank is -1: expected 0 or more"),
        ({"lora_rank": 4, "language_weights": None}, "adapters change pretrained weights"),
        ({"language_dtype": "bfloat16"}, "weights that learn need float32"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(data, weights, options, message):
    with pytest.raises(UserError, match=message):
        DualTransfer.for_data(data, **{"language_model": weights, "language_weights": weights} | SMALL | options)


def test_the_page_shows_the_sizes():
    page = (ROOT / "docs" / "dual_transfer.md").read_text()
    for name in GPT2_SIZES:
        with torch.device("meta"):
            model = build_language_model(name, None, vocab_size=50260)
        model.adapt(rank=16)
        count = {True: 0, False: 0}
        for key, parameter in model.named_parameters():
            count[is_adapter(key)] += parameter.numel()
        frozen, learn = count[False], count[True]
        layers = [module.base_layer for module in model.modules() if hasattr(module, "base_layer")]
        linear, outputs = (sum(getattr(layer, part).numel() for layer in layers) for part in ("weight", "bias"))
        row = f"| `{name}` | {frozen / 1e6:.0f} M | {learn / 1e6:.1f} M | "
        small = linear + 8 * outputs + 2 * (frozen - linear - outputs)  # scale and bias of an output are float32
        assert row + f"{frozen * 4 / 1e9:.2f} GB, {frozen * 2 / 1e9:.2f} GB, {small / 1e9:.2f} GB |" in page
