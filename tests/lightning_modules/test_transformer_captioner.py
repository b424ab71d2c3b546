"""What is the Transformer captioner's own; `test_attention_rnn` has the laws of the parts that it shares."""

import pytest
import torch

from core.errors import UserError
from datamodules.scenes import SceneCaptions
from lightning_modules import TransformerCaptioner

SMALL = {"image_encoder": "small-conv", "layers": 2, "heads": 2, "hidden_dim": 16, "feedforward_dim": 24}


@pytest.fixture(scope="module")
def data():
    return SceneCaptions(num_train=6, num_val=2, num_test=2, batch_size=3)


@pytest.fixture(scope="module")
def batch(data):
    torch.manual_seed(0)
    return next(iter(data.val_dataloader()))


def make(data, **changes):
    torch.manual_seed(0)
    module = TransformerCaptioner.for_data(data, **{**SMALL, "dropout": 0.0, "unfreeze_epoch": 0, **changes})
    module.inference, module.tokenizer = data.describe(), data.tokenizer
    return module


@pytest.mark.parametrize("term", ["doubly_stochastic", "attention_supervision", "bag_of_words_weight"])
def test_terms_join_the_loss_and_reach_the_network(data, batch, term):
    plain, _ = make(data).step_loss(batch)
    module = make(data, **{term: 0.5})
    loss, _ = module.step_loss(batch)
    assert loss > plain
    (loss - plain.detach()).backward()
    learnt = module.captioner.blocks[-1].query if term != "bag_of_words_weight" else module.words
    assert learnt.weight.grad.abs().sum() > 0


def test_supervision_teaches_the_last_block_to_look(data, batch):
    module = make(data, attention_supervision=1.0, positions=True)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)

    def looks():
        _, output = module.teacher_forced(batch)
        places = module._places(batch, output.attention)
        return (output.attention[places.caption, places.step] * places.inside).sum(1).mean().item()

    before = looks()
    for _ in range(40):
        optimizer.zero_grad()
        module.step_loss(batch)[0].backward()
        optimizer.step()
    assert looks() > max(0.5, 2 * before)


def test_a_frozen_cnn_is_no_part_of_the_optimiser(data):
    frozen, learning = make(data, unfreeze_epoch=None), make(data)
    assert [len(group.parameters) > 0 for group in frozen.parameter_groups()] == [True, False]
    assert [len(group.parameters) > 0 for group in learning.parameter_groups()] == [True, True]
    assert not frozen.train().captioner.encoder.training


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_encoder": None, "unfreeze_epoch": None}, "there is no image encoder"),
        ({"feature_dim": 5}, "the data module has an encoder, too"),
        ({"heads": 3}, "hidden_dim=16 cannot be shared among heads=3"),
        ({"hidden_dim": 18, "positions": True}, "width=18 of a 2-D positional encoding is not a multiple of 4"),
        ({"layers": 0}, "layers is 0: expected 1 or more"),
    ],
)
def test_wrong_settings(data, changes, message):
    with pytest.raises(UserError, match=message):
        make(data, **changes)
