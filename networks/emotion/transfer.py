"""Copying and freezing the first blocks of a network: AnB, AnB+, BnB, BnB+.

After "How transferable are features in deep neural networks?" (Yosinski et al. 2014): network B copies its first n
blocks from a network trained on A (AnB) or on B itself (BnB), and the rest is trained from scratch. The copied blocks
are frozen, or fine-tuned (with a plus).

Letters: C labels, D inputs of the last layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from core.errors import UserError
from networks.emotion.base import Block, EmotionNetwork


@dataclass(kw_only=True)
class TransferReport:
    """Result of a transfer; its lines are for the user.

    Attributes:
        depth: number of blocks requested.
        most: number of blocks the target has.
        copied: names of blocks that were copied completely.
        left: what was requested and could not be copied, each with the reason.
        head: what was done with the head.
    """

    depth: int
    most: int
    copied: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    head: str = "new"

    def lines(self) -> list[str]:
        """One line each for what was copied, what was not, and the head."""
        names = "; ".join(self.copied) or "none"
        lines = [f"transfer: {len(self.copied)} of {self.depth} blocks copied, of {self.most} in all: {names}"]
        lines += [f"transfer: NOT copied: {text}" for text in self.left]
        return [*lines, f"transfer: head: {self.head}"]


def check_depth(network: EmotionNetwork, depth: int | None) -> int:
    """The number of blocks that a cut depth means; None means all but the head.

    Raises:
        UserError: the network has fewer blocks.
    """
    most = len(network.blocks())
    if depth is not None and not 0 <= depth <= most:
        names = ", ".join(f"{number} = {name}" for number, (name, _) in enumerate(network.blocks(), 1))
        raise UserError(f"cut_depth is {depth}: expected 0 to {most} ({names})")
    return most if depth is None else depth


def transfer(
    source: EmotionNetwork,
    target: EmotionNetwork,
    depth: int | None,
    *,
    head: bool = False,
    words: tuple[Sequence[str], Sequence[str]] | None = None,
    labels: tuple[Sequence[str], Sequence[str]] | None = None,
) -> TransferReport:
    """Copies the first blocks of one network into another.

    Blocks of the same architecture are found by their names, their tensors likewise; a tensor of another shape is
    left unchanged and reported. Word embeddings are copied word by word when vocabularies are given, since the same id
    may mean another word. Networks of different architectures have no blocks in common: between those, only the last
    layer is initialised, see `adapt_head`.

    Args:
        source: network to copy from.
        target: network to copy into.
        depth: n, number of blocks; None: all.
        head: also copy the last layer.
        words: words of the source and of the target, in the order of their ids, when these are different.
        labels: names of the labels of both; rows of the head are matched by them. None: by their order.

    Raises:
        UserError: the target has fewer blocks.
    """
    depth = check_depth(target, depth)
    report = TransferReport(depth=depth, most=len(target.blocks()))
    same = type(source) is type(target)
    known: dict[str, Block] = {block[0]: block for block in source.blocks()} if same else {}
    for name, parts in target.blocks()[:depth]:
        if not same:
            report.left.append(f"{name}: {type(source).__name__} has no such block")
        elif name not in known:
            report.left.append(f"{name}: not in the source, which has {', '.join(known)}")
        elif problems := _copy_block(known[name][1], parts, words):
            report.left += [f"{name}: {problem}" for problem in problems]
        else:
            report.copied.append(name)
    if head or (depth and not same):
        report.head = _copy_head(source, target, labels, report) if same else adapt_head(source, target, labels)
    return report


def freeze(network: EmotionNetwork, depth: int | None) -> list[nn.Module]:
    """Freezes the first blocks, except what is new in them (`EmotionNetwork.new_modules`).

    Returns:
        Their modules, which must be set to evaluation mode again whenever the network is set to training mode.
    """
    modules: list[nn.Module] = []
    for _, parts in network.blocks()[: check_depth(network, depth)]:
        for part in parts:
            part.requires_grad_(False)
            if isinstance(part, nn.Module):
                modules.append(part.eval())
    for new in network.new_modules():
        new.requires_grad_(True)
    return modules


def adapt_head(
    source: EmotionNetwork, target: EmotionNetwork, labels: tuple[Sequence[str], Sequence[str]] | None = None
) -> str:
    """Initialises the target's last layer from the last two layers of a network of another architecture.

    The source's fc2(ReLU(fc1(x))) is approximated by one linear layer: weight W2 W1 `(C', D')` and bias
    W2 ReLU(b1) + b2. If the target's last layer has as many inputs as fc2, fc2 itself is used. Rows go to the labels of
    the same name (without names, in order), and labels without one keep their new rows. The first min(D, D') columns
    are copied, and further columns of the target are zero. The inputs of the two layers mean different things, so only
    the bias, which reflects the labels' frequencies, is sure to transfer.

    Returns:
        A description of what was done.
    """
    layers = source.last_layers()
    last = layers[-1]
    if len(layers) == 1 or last.in_features == target.head.in_features:
        weight, bias = last.weight.data, last.bias.data
    else:
        weight = last.weight.data @ layers[0].weight.data
        bias = last.weight.data @ layers[0].bias.data.relu() + last.bias.data
    rows = _matched(labels, len(bias), target.head.out_features)
    columns = min(weight.shape[1], target.head.in_features)
    with torch.no_grad():
        for old, new in rows:
            target.head.weight[new] = 0.0
            target.head.weight[new, :columns] = weight[old, :columns]
            target.head.bias[new] = bias[old]
    return (
        f"from the last {len(layers)} layers of {type(source).__name__}: {len(rows)} of {target.head.out_features} "
        f"labels, {columns} of {target.head.in_features} columns"
    )


def _copy_block(
    sources: Sequence[nn.Module | nn.Parameter],
    targets: Sequence[nn.Module | nn.Parameter],
    words: tuple[Sequence[str], Sequence[str]] | None,
) -> list[str]:
    """Copies the tensors of one block; returns descriptions of those that do not match."""
    if len(sources) != len(targets):
        return [f"{len(sources)} parts in the source, {len(targets)} here"]
    problems: list[str] = []
    for source, target in zip(sources, targets, strict=True):
        old, new = _tensors(source), _tensors(target)
        tables = _word_tables(target) if words is not None and words[0] != words[1] else set()
        for name, tensor in new.items():
            if name not in old:
                problems.append(f"'{name}' is not in the source")
            elif name in tables and words is not None:
                missing = copy_words(old[name], tensor, *words)
                problems += [f"'{name}': {missing} of {len(tensor)} words are unknown to the source"] if missing else []
            elif old[name].shape != tensor.shape:
                problems.append(f"'{name}' is {tuple(old[name].shape)} in the source, {tuple(tensor.shape)} here")
            else:
                tensor.data.copy_(old[name])
        problems += [f"'{name}' is only in the source" for name in old if name not in new]
    return problems


def copy_words(source: Tensor, target: Tensor, source_words: Sequence[str], target_words: Sequence[str]) -> int:
    """Copies rows of word embeddings by word.

    Args:
        source: `(V', W)`.
        target: `(V, W)`, changed in place.
        source_words: V' words.
        target_words: V words.

    Returns:
        Number of words that the source does not know; their rows are left unchanged.
    """
    if source.shape[1] != target.shape[1]:
        return len(target)
    places = {word: place for place, word in enumerate(source_words)}
    found = [(places[word], place) for place, word in enumerate(target_words) if word in places]
    if found:
        old, new = torch.tensor(found, device=target.device).T
        target.data[new] = source.data.to(target.device)[old]
    return len(target) - len(found)


def _word_tables(part: nn.Module | nn.Parameter) -> set[str]:
    """Names of word embeddings in a part of a network: the only embeddings with a padding token."""
    if isinstance(part, nn.Parameter):
        return set()
    found = (name for name, m in part.named_modules() if isinstance(m, nn.Embedding) and m.padding_idx is not None)
    return {f"{name}.weight".lstrip(".") for name in found}


def _tensors(part: nn.Module | nn.Parameter) -> Mapping[str, Tensor]:
    """Parameters and buffers by name."""
    return {"": part} if isinstance(part, nn.Parameter) else part.state_dict(keep_vars=True)


def _matched(labels: tuple[Sequence[str], Sequence[str]] | None, old: int, new: int) -> list[tuple[int, int]]:
    """Pairs of rows, of the source and of the target, for the same label."""
    if labels is None:
        return [(row, row) for row in range(min(old, new))]
    places = {name: place for place, name in enumerate(labels[0])}
    return [(places[name], place) for place, name in enumerate(labels[1]) if name in places]


def _copy_head(
    source: EmotionNetwork,
    target: EmotionNetwork,
    labels: tuple[Sequence[str], Sequence[str]] | None,
    report: TransferReport,
) -> str:
    """Copies the rows of the last layer that belong to the same labels."""
    if source.head.in_features != target.head.in_features:
        report.left.append(f"head: {source.head.in_features} inputs in the source, {target.head.in_features} here")
        return "new"
    rows = _matched(labels, source.head.out_features, target.head.out_features)
    with torch.no_grad():
        for old, new in rows:
            target.head.weight[new] = source.head.weight[old]
            target.head.bias[new] = source.head.bias[old]
    return f"copied, {len(rows)} of {target.head.out_features} labels"
