import json
import socket

import pytest
import torch
from transformers import GPT2LMHeadModel, OPTConfig

from core.errors import UserError
from networks.decoders.language import GPT2_SIZES, LanguageModel, build_language_model, pack
from networks.layers.sequences import select_rows


def tiny(vocab_size: int = 30, **changes) -> LanguageModel:
    torch.manual_seed(0)
    arguments = {"layers": 2, "heads": 2, "hidden_dim": 16, "dropout": 0.0} | changes
    return build_language_model("gpt2", None, vocab_size=vocab_size, **arguments)


def captions(vocab_size: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([3, 9, 1, 5, 5, 2, 20])
    return torch.randint(vocab_size, (7, 20), generator=torch.Generator().manual_seed(1)), lengths


def test_hidden_states_and_logits_are_those_of_transformers():
    model = tiny().eval()
    config = model.network.config
    config.tie_word_embeddings = True
    oracle = GPT2LMHeadModel(config).eval()
    oracle.transformer.load_state_dict(model.network.state_dict())
    ids, _ = captions()
    torch.testing.assert_close(model.logits(model.hidden(ids)), oracle(ids).logits, rtol=1e-4, atol=1e-5)


def test_padding_that_is_not_computed_changes_nothing():
    model = tiny().double()
    ids, lengths = captions()
    plain, packed = model.hidden(ids), model.hidden(ids, lengths)
    real = torch.arange(20) < lengths[:, None]
    torch.testing.assert_close(packed[real], plain[real])
    gradients = []
    for hidden in (plain, packed):
        model.zero_grad()
        (hidden[real] * torch.linspace(-1, 1, 16)).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_padding_content_does_not_matter():
    model = tiny()
    ids, lengths = captions()
    real = torch.arange(20) < lengths[:, None]
    other = ids.where(real, 7)
    for given in (None, lengths):
        torch.testing.assert_close(model.hidden(ids, given)[real], model.hidden(other, given)[real])


def test_pieces_of_a_pack_do_not_overlap():
    lengths = torch.randint(1, 30, (50,), generator=torch.Generator().manual_seed(0)).tolist()
    starts, rows = pack(lengths, 64)
    used = [place for start, length in zip(starts, lengths, strict=True) for place in range(start, start + length)]
    assert len(set(used)) == sum(lengths)
    assert max(used) < 64 * rows
    assert all(start // 64 == (start + length - 1) // 64 for start, length in zip(starts, lengths, strict=True))
    assert rows <= sum(lengths) / 64 * 1.2 + 1


@pytest.mark.filterwarnings("error::FutureWarning")  # the cache goes by the name that transformers wants
def test_cached_steps_are_the_parallel_pass_even_when_rows_move():
    model = tiny().eval()
    ids, _ = captions()
    expected = model.hidden(ids[:, :6])
    state, order = None, torch.arange(7)
    for t in range(6):
        hidden, state = model.cached_step(ids[order, t], state)
        torch.testing.assert_close(hidden, expected[order, t], rtol=1e-4, atol=1e-5)
        assert all(tensor.shape[0] == len(order) for tensor in state.values())
        if t == 2:
            order = torch.tensor([4, 4, 1])
            state = select_rows(state, order)


def test_a_step_leaves_the_state_it_was_given_alone():
    model = tiny().eval()
    _, state = model.cached_step(torch.tensor([1, 2]), None)
    before = {name: tensor.clone() for name, tensor in state.items()}
    first, _ = model.cached_step(torch.tensor([3, 4]), state)
    second, _ = model.cached_step(torch.tensor([3, 4]), state)
    assert torch.equal(first, second)
    assert all(torch.equal(before[name], state[name]) for name in state)


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        model = tiny(dropout=0.3, gradient_checkpointing=checkpointing).train()
        ids, lengths = captions()
        torch.manual_seed(5)
        model.logits(model.hidden(ids, lengths)).square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None
        torch.testing.assert_close(gradient, gradients[1][name])


def test_architecture_comes_back_from_plain_json(monkeypatch):
    model = tiny(dropout=0.2)
    text = json.dumps(model.config_dict())
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("touched the network"))
    again = build_language_model("gpt2", None, vocab_size=30, config=json.loads(text))
    again.load_state_dict(model.state_dict())
    ids, _ = captions()
    assert torch.equal(model.eval().hidden(ids), again.eval().hidden(ids))
    assert again.config_dict() == model.config_dict()
    assert again.network.config.resid_pdrop == 0.2


def test_published_sizes():
    with torch.device("meta"):
        model = build_language_model("gpt2", None, vocab_size=50257)
    assert sum(p.numel() for p in model.parameters()) == 124_439_808
    assert GPT2_SIZES["gpt2-xl"] == (48, 25, 1600)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_pretrained_vocabulary_grows_sensibly(tmp_path, kind):
    old = tiny(vocab_size=30)
    if kind == "folder":
        old.network.save_pretrained(tmp_path)
        new = build_language_model("gpt2", str(tmp_path), vocab_size=32, bos_id=30, eos_id=29)
    else:
        torch.save({f"transformer.{k}": v for k, v in old.network.state_dict().items()}, tmp_path / "w.pth")
        new = build_language_model(
            "any", str(tmp_path / "w.pth"), vocab_size=32, bos_id=30, eos_id=29, config=old.config_dict()
        )
    table = new.network.get_input_embeddings().weight
    before = old.network.get_input_embeddings().weight
    assert new.vocab_size == 32
    assert torch.equal(table[:30], before)
    assert torch.equal(table[30], before[29])
    torch.testing.assert_close(table[31], before.mean(0))
    ids, _ = captions()
    assert torch.equal(old.eval().hidden(ids), new.eval().hidden(ids))


def test_another_family_of_models():
    config = OPTConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, ffn_dim=32, word_embed_proj_dim=16
    )
    model = build_language_model("opt", None, vocab_size=30, config=config.to_dict(), dropout=0.0).eval()
    ids, lengths = captions()
    expected = model.hidden(ids, lengths)
    state = None
    for t in range(4):
        hidden, state = model.cached_step(ids[:, t], state)
        torch.testing.assert_close(hidden, expected[:, t], rtol=1e-4, atol=1e-5)


def test_errors_name_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"'no/such-model' is unknown: give one of.*go online once"):
        build_language_model("no/such-model", None, vocab_size=30)
    with pytest.raises(UserError, match=r"'\./missing' do not exist.*existing folder"):
        build_language_model("gpt2", "./missing", vocab_size=30)
    with pytest.raises(UserError, match=r"cannot be (reached|read.*); go online once.*local file or folder.*null"):
        build_language_model("gpt2", str(tmp_path), vocab_size=30)
    with pytest.raises(UserError, match="remove them, or set language_weights to null"):
        build_language_model("gpt2", "pretrained", vocab_size=30, layers=2)
    with pytest.raises(UserError, match="language_dim=10 is not divisible by language_heads=3"):
        build_language_model("gpt2", None, vocab_size=30, hidden_dim=10, heads=3)
    old = tiny(vocab_size=30)
    old.network.save_pretrained(tmp_path / "saved")
    with pytest.raises(UserError, match="tokenizer has 20 tokens but the pretrained language model 30"):
        build_language_model("gpt2", str(tmp_path / "saved"), vocab_size=20)
