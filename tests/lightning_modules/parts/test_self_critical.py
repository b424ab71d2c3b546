"""Training on the metric: what is rewarded, what is scored, and that the reward rises, for every captioner."""

import pytest
import torch

import cli
from lightning_modules.captioning import CaptioningModule
from lightning_modules.parts.rewards import CaptionReward
from metrics.captions import References
from networks.generation.search import decode
from networks.generation.settings import DecodingSettings
from tests.lightning_modules.parts.test_condition import with_feelings
from tests.tiny import make_config, make_folder
from tests.twins import batch_maker, cases

CAPTIONERS = [case for case in cases() if not case.variant and issubclass(case.method, CaptioningModule)]
DRAWN = DecodingSettings(sample=True, num_captions=4, max_tokens=10)


@pytest.fixture(scope="module")
def batch_of(tmp_path_factory):
    with batch_maker(tmp_path_factory.mktemp("cache"), 2) as make:
        yield make


@pytest.fixture
def made(request, batch_of):
    """A captioner that is trained on its reward, and a batch."""
    case = request.param
    data, batch = batch_of(case)
    options = {**case.options, "reward_samples": 4, "max_tokens": 10}
    torch.manual_seed(0)
    module = case.method.for_data(data, **options)
    module.use_tokenizer(data.tokenizer)
    module.log = lambda *args, **kwargs: None
    module._reward = CaptionReward(references=data.references("train"), scenes={})
    return module, batch


@pytest.mark.parametrize("made", CAPTIONERS, ids=str, indirect=True)
def test_tokens_have_the_probabilities_that_they_were_drawn_with(made):
    module, batch = made
    captioner = module.captioner.eval()
    with torch.no_grad():
        memory = captioner.encode(batch)
        drawn = decode(captioner, memory, DRAWN, torch.Generator().manual_seed(3))
        output, lengths = module._scored(memory, drawn)
        start = torch.full((len(batch["image_id"]),), captioner.bos_id)
        logits, _ = captioner.step(memory, start, None)
    assert torch.equal(output.targets[: lengths[0]], drawn.token_ids[0, 0, : lengths[0]])
    never = [i for i in (captioner.bos_id, captioner.pad_id, captioner.unk_id) if i is not None]
    probabilities = output.logits.softmax(dim=1)
    assert not probabilities[:, never].any()
    first = lengths.cumsum(0)[:-1:4]  # the first token of each image's best caption, but for the first image
    logits[:, never] = -torch.inf
    expected = logits.softmax(dim=1)
    starts = torch.cat([first.new_zeros(1), lengths.view(-1, 4).sum(1).cumsum(0)[:-1]])
    torch.testing.assert_close(probabilities[starts], expected, atol=1e-5, rtol=1e-4)
    log_prob = output.logits.log_softmax(1).gather(1, output.targets.unsqueeze(1)).squeeze(1)
    own = torch.stack([part.sum() for part in log_prob.split(lengths.tolist())]).view_as(drawn.log_prob)
    # drawn.log_prob is that of the whole vocabulary, what is never drawn included
    assert (own >= drawn.log_prob - 1e-4).all()


@pytest.mark.parametrize("made", CAPTIONERS, ids=str, indirect=True)
@pytest.mark.parametrize("baseline", ["samples", "greedy"])
def test_a_step_makes_good_captions_likelier(made, baseline):
    module, batch = made
    module.reward_baseline = baseline
    logged = {}
    module.log = lambda name, value, **kwargs: logged.update({name: float(value)})
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=1e-3)
    with torch.no_grad():
        torch.manual_seed(5)  # nothing is dropped, so that the step below draws the same captions
        memory = module.train().captioner.encode(batch)
        drawn = decode(module.captioner, memory, module._sampling())
        rewards = module._rewards(batch, drawn)
        others = (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
        if baseline == "greedy":
            others = module._rewards(batch, decode(module.captioner, memory, DecodingSettings(max_tokens=10)))
    torch.manual_seed(5)
    loss, _ = module.step_loss(batch)
    assert loss.item() == pytest.approx(-rewards.mean().item()) == pytest.approx(-logged["train/reward"])
    assert ("train/greedy_reward" in logged) == (baseline == "greedy")
    before = likelihood(module, batch, drawn, rewards - others)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    assert likelihood(module, batch, drawn, rewards - others) > before


@torch.no_grad()
def likelihood(module, batch, drawn, weights):
    """Log-probabilities of captions, weighted by what they earn above what is expected."""
    output, lengths = module._scored(module.captioner.encode(batch), drawn)
    log_prob = output.logits.log_softmax(1).gather(1, output.targets.unsqueeze(1)).squeeze(1)
    each = torch.stack([part.sum() for part in log_prob.split(lengths.tolist())])
    return float((weights.flatten() * each).sum())


def test_captions_are_drawn_under_their_condition(batch_of):
    case = with_feelings(CAPTIONERS[0], conditioned=True, reward_samples=3, caption_loss=0.0, max_tokens=10)
    data, batch = batch_of(case)
    module = case.make(data)
    module.use_tokenizer(data.tokenizer)
    module.log = lambda *args, **kwargs: None
    module._reward = CaptionReward(references=data.references("train"), scenes={})
    torch.nn.init.normal_(next(module.captioner.conditions.parameters()))
    loss, _ = module.train().step_loss(batch)
    loss.backward()
    assert any(parameter.grad.abs().sum() > 0 for parameter in module.captioner.conditions.parameters())
    module.caption_loss = 0.5
    torch.manual_seed(5)
    both, _ = module.step_loss(batch)
    module.caption_loss = 0.0
    torch.manual_seed(5)
    alone, _ = module.step_loss(batch)
    assert both > alone


REFERENCES = {"a": ["a dog runs on the grass", "a brown dog on grass"], "b": ["two cats sleep", "cats on a bed"]}


def test_a_caption_that_breaks_off_earns_less():
    reward = CaptionReward(references=REFERENCES, scenes={})
    whole, cut = reward(["a", "a"], ["a dog runs on the grass", "a dog runs on the"], [True, False])
    same, open_ended = reward(["a", "a"], ["a dog runs on the grass"] * 2, [True, False])
    assert whole == same > open_ended > 0
    assert whole > cut


def test_rewards_are_the_metrics():
    plain = References(REFERENCES).rows(["a", "b"], ["a dog runs", "cats sleep"])
    reward = CaptionReward(references=REFERENCES, scenes={}, cider_d=0.0, bleu4=2.0)
    assert reward(["b"], ["two cats sleep"], [True])[0] == pytest.approx(2.0)
    assert plain[0, 10] > 0
    assert CaptionReward(references=REFERENCES, scenes={})(["a"], ["two cats"], [True])[0] < plain[0, 10]


def test_facts_of_scenes_are_a_reward(batch_of):
    data, _ = batch_of(CAPTIONERS[0])
    references, scenes = data.references("train"), data.scenes("train")
    reward = CaptionReward(references=references, scenes=scenes, cider_d=0.0, truth=1.0)
    name, texts = next(iter(references.items()))
    true, false = reward([name, name], [texts[0], "nothing"], [True, True])
    assert 1 >= true > 0.5
    assert false == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["reward_samples=1"], "reward_samples is 1: expected 2 or more with reward_baseline=samples, or 0"),
        (["reward_samples=2", "reward_cider_d=0"], "all weights are 0: set one of reward_cider_d"),
        (["reward_samples=2", "reward_truth=1"], "only synthetic scenes have known facts"),
    ],
)
def test_mistakes_take_one_line(options, said, tmp_path, capsys):
    config = make_config(tmp_path / "tiny.yaml", make_folder(tmp_path / "data", 8), epochs=1)
    given = [f"--model.init_args.{option}" for option in options]
    assert cli.main(["fit", "--config", str(config), "--wandb=off", "--run_dir", str(tmp_path / "run"), *given]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_trained_run_goes_on_with_the_reward(tmp_path):
    config = make_config(tmp_path / "tiny.yaml", make_folder(tmp_path / "data", 12), epochs=1)
    fit = ["fit", "--config", str(config), "--wandb=off"]
    assert cli.main([*fit, "--run_dir", str(tmp_path / "first")]) == 0
    more = ["--model.init_args.init_from", str(tmp_path / "first"), "--model.init_args.reward_samples=2"]
    assert cli.main([*fit, *more, "--trainer.log_every_n_steps=1", "--run_dir", str(tmp_path / "second")]) == 0
    header = (tmp_path / "second" / "metrics.csv").read_text().splitlines()[0]
    assert {"train/reward", "train/sample_length"} <= set(header.split(","))
