"""Copying and freezing blocks: exactly the first n, to the last bit, and everything else is said."""

import pytest
import torch

from core.errors import UserError
from networks.emotion.transfer import check_depth, copy_words, freeze, transfer
from tests.networks.emotion.emotion_batch import make_batch, make_network

READERS = ("visual_bert", "light", "bert_resnet")


def pair(architecture, other=None):
    torch.manual_seed(1)
    source = make_network(other or architecture)
    source.train()
    source(make_batch())  # norms have seen something
    torch.manual_seed(2)
    return source, make_network(architecture)


def state(part):
    return {name: value.clone() for name, value in part.state_dict().items()}


@pytest.mark.parametrize("architecture", READERS)
@pytest.mark.parametrize("depth", [0, 1, 2, None])
def test_exactly_the_first_blocks_are_copied(architecture, depth):
    source, target = pair(architecture)
    before = [[state(part) for part in parts] for _, parts in target.blocks()]
    head = state(target.head)
    report = transfer(source, target, depth)
    depth = len(before) if depth is None else depth
    assert len(report.copied) == depth
    assert report.left == []
    for place, ((_, own), (_, theirs)) in enumerate(zip(target.blocks(), source.blocks(), strict=True)):
        for part, old, other in zip(own, before[place], theirs, strict=True):
            wanted = state(other) if place < depth else old
            assert all(torch.equal(value, wanted[name]) for name, value in part.state_dict().items())
    assert all(torch.equal(value, head[name]) for name, value in target.head.state_dict().items())
    assert report.head == "new"


def test_copied_network_computes_the_same_with_its_head():
    source, target = pair("light")
    report = transfer(source, target, None, head=True)
    assert report.head == "copied, 5 of 5 labels"
    batch = make_batch()
    assert torch.equal(source.eval()(batch).logits, target.eval()(batch).logits)


def test_the_source_is_copied_not_shared():
    source, target = pair("light")
    transfer(source, target, None)
    before = state(source)
    for parameter in target.parameters():
        parameter.data.add_(1.0)
    assert all(torch.equal(value, before[name]) for name, value in source.state_dict().items())


def test_words_are_matched_not_ids():
    source = torch.arange(8.0).view(4, 2)
    target = torch.full((3, 2), -1.0)
    assert copy_words(source, target, ["p", "dog", "cat", "a"], ["p", "cat", "zebra"]) == 1
    assert target.tolist() == [[0.0, 1.0], [4.0, 5.0], [-1.0, -1.0]]


def test_word_embeddings_follow_the_vocabularies_and_unknown_words_are_counted():
    source, target = pair("light")
    old = [f"w{number}" for number in range(20)]
    new = [*reversed(old[1:]), "unheard"]
    before = target.words.weight.detach().clone()
    report = transfer(source, target, 1, words=(old, new))
    assert report.copied == []
    assert report.left == ["words, convolution 1: 'weight': 1 of 20 words are unknown to the source"]
    assert torch.equal(target.words.weight[0], source.words.weight[19])
    assert torch.equal(target.words.weight[19], before[19])


def test_same_words_in_the_same_order_are_a_plain_copy():
    source, target = pair("visual_bert")
    names = [str(number) for number in range(20)]
    assert transfer(source, target, 1, words=(names, names)).left == []


def test_labels_of_the_head_are_matched_by_name():
    source, target = pair("light")
    labels = (["joy", "fear", "awe", "calm", "sad"], ["sad", "new", "joy", "other", "fear"])
    before = target.head.weight.detach().clone()
    report = transfer(source, target, None, head=True, labels=labels)
    assert report.head == "copied, 3 of 5 labels"
    assert torch.equal(target.head.weight[[0, 2, 4]], source.head.weight[[4, 0, 1]])
    assert torch.equal(target.head.weight[[1, 3]], before[[1, 3]])


def test_other_sizes_are_listed_and_left():
    torch.manual_seed(1)
    source, target = make_network("light", hidden_dim=6), make_network("light")
    before = state(target.gru)
    report = transfer(source, target, None, head=True)
    assert "words, convolution 1" in report.copied
    text = "\n".join(report.lines())
    assert "NOT copied: GRU, convolution 2: 'weight_ih_l0' is (18, 12) in the source, (24, 12) here" in text
    assert "NOT copied: fc1: 'weight' is (10, 14) in the source, (10, 16) here" in text
    assert all(torch.equal(value, before[name]) for name, value in target.gru.state_dict().items())


def test_fewer_layers_are_listed():
    source, target = make_network("visual_bert", layers=2), make_network("visual_bert")
    report = transfer(source, target, None)
    assert [text.partition(":")[0] for text in report.left] == ["layer 2", "layer 3, pooler"]


def test_across_architectures_the_head_comes_from_the_last_two_layers():
    source, target = pair("visual_bert", "light")
    before = [state(part) for _, parts in target.blocks() for part in parts]
    report = transfer(source, target, None)
    assert report.copied == []
    assert len(report.left) == 3
    assert "LightStudent has no such block" in report.left[0]
    assert report.head == "from the last 2 layers of LightStudent: 5 of 5 labels, 16 of 16 columns"
    weight = source.head.weight @ source.fc1.weight  # 5 x 16: the student's 8 + 8 inputs
    torch.testing.assert_close(target.head.weight, weight[:, :16])
    torch.testing.assert_close(target.head.bias, source.head.weight @ source.fc1.bias.relu() + source.head.bias)
    after = [state(part) for _, parts in target.blocks() for part in parts]
    assert all(torch.equal(old[name], new[name]) for old, new in zip(before, after, strict=True) for name in old)


def test_across_architectures_wider_heads_are_padded_and_depth_zero_takes_nothing():
    torch.manual_seed(1)
    source, target = make_network("light"), make_network("visual_bert", bert_dim=32)
    head = state(target.head)
    assert transfer(source, target, 0).head == "new"
    assert all(torch.equal(value, head[name]) for name, value in target.head.state_dict().items())
    transfer(source, target, 1)
    assert target.head.weight[:, 16:].abs().max() == 0
    same = make_network("bert_resnet")
    transfer(source, same, 1)  # as many inputs as fc2: taken as it is
    assert torch.equal(same.head.weight, source.head.weight)


def test_depth_out_of_range_names_the_blocks():
    network = make_network("light")
    assert check_depth(network, None) == 4
    with pytest.raises(UserError, match=r"cut_depth is 5: expected 0 to 4 \(1 = words, convolution 1, 2 = GRU"):
        check_depth(network, 5)


@pytest.mark.parametrize("architecture", READERS)
def test_frozen_blocks_do_not_move_by_a_bit_and_the_others_do(architecture):
    torch.manual_seed(0)
    network = make_network(architecture, dropout=0.5)
    frozen = freeze(network, 2)
    network.train()
    for module in frozen:
        module.eval()
    before = [[state(part) for part in parts] for _, parts in network.blocks()]
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=0.1, weight_decay=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        network(make_batch()).logits.square().sum().backward()
        optimizer.step()
    for place, (_, parts) in enumerate(network.blocks()):
        same = [
            torch.equal(value, old[name])
            for part, old in zip(parts, before[place], strict=True)
            for name, value in part.state_dict().items()
        ]
        assert all(same) if place < 2 else not all(same)
