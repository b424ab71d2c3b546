"""BERT and VisualBERT from transformers: sizes, offline construction, loading of published weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from core.errors import UserError
from core.hub import WAYS_OUT, hub_folder, only_local
from core.inputs import damage, reason
from networks.layers.weights import check_local, quietly

if TYPE_CHECKING:  # see networks.decoders.language
    from transformers import BertConfig, BertModel, VisualBertConfig
    from transformers import VisualBertModel as VisualBert

BertKind = Literal["bert", "visual_bert"]
_PROJECTION = ("embeddings.visual_projection.weight", "embeddings.visual_projection.bias")
"""Tensors that depend on the detector whose features the published weights were trained on."""
_WIDTHS = {"uclanlp/visualbert-vqa-coco-pre": 2048}
"""Regions of published weights, known before anything is downloaded."""


def bert_config(
    kind: BertKind,
    weights: str | None,
    *,
    vocab_size: int,
    pad_id: int,
    layers: int | None = None,
    heads: int | None = None,
    bert_dim: int | None = None,
    dropout: float | None = None,
    visual_dim: int | None = None,
    saved: Mapping[str, Any] | None = None,
) -> "BertConfig | VisualBertConfig":
    """Architecture of a body; nothing is ever downloaded.

    Args:
        kind: which of the two.
        weights: the sizes of a local folder are read from its config.json; for a hub id they are the usual ones (12
            layers, 12 heads, width 768) unless given.
        vocab_size: tokens of our tokeniser.
        pad_id: its padding token.
        layers: encoder layers.
        heads: attention heads.
        bert_dim: hidden width.
        dropout: dropout probability of hidden values and attention weights.
        visual_dim: width of image regions (VisualBERT only).
        saved: sizes from a checkpoint; they replace all but `visual_dim`.

    Raises:
        UserError: the width is not divisible by the number of heads, the folder has no configuration, or the weights
            have fewer tokens than the tokenizer.
    """
    from transformers import AutoConfig, BertConfig, VisualBertConfig

    values: dict[str, Any] = dict(saved or {})
    if not values and weights is not None and Path(weights).is_dir():
        check_local(weights)
        config_file = Path(weights) / "config.json"
        if not config_file.is_file():  # without one, transformers 5.0 guesses from the folder's name
            raise UserError(f"BERT weights '{weights}' have no readable config.json; {WAYS_OUT}")
        with damage(config_file, "a configuration of BERT", WAYS_OUT):
            values = AutoConfig.from_pretrained(weights, local_files_only=True, trust_remote_code=False).to_dict()
    values["use_cache"] = False  # nothing is generated
    values |= {"vocab_size": values.get("vocab_size", vocab_size), "pad_token_id": pad_id}
    given = {"num_hidden_layers": layers, "num_attention_heads": heads, "hidden_size": bert_dim}
    values |= {name: value for name, value in given.items() if value is not None}
    if bert_dim is not None and saved is None:
        values["intermediate_size"] = 4 * bert_dim
    if dropout is not None:
        values |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    if kind == "visual_bert":
        values["visual_embedding_dim"] = visual_dim or 1
    with damage(weights or "BERT", "a configuration of BERT", WAYS_OUT):
        config = BertConfig(**values) if kind == "bert" else VisualBertConfig(**values)
    if config.hidden_size % config.num_attention_heads:
        raise UserError(f"bert_dim={config.hidden_size} is not divisible by heads={config.num_attention_heads}")
    if config.vocab_size < vocab_size:
        raise UserError(
            f"BERT weights '{weights}' have {config.vocab_size} tokens, the tokenizer {vocab_size}: set "
            "data.init_args.tokenizer to the one of these weights"
        )
    return config


def build_bert(
    config: "BertConfig | VisualBertConfig", *, gradient_checkpointing: bool = False
) -> "BertModel | VisualBert":
    """Builds a body with random weights."""
    from transformers import BertModel, VisualBertConfig
    from transformers import VisualBertModel as VisualBert

    network = VisualBert(config) if isinstance(config, VisualBertConfig) else BertModel(config)
    if gradient_checkpointing:
        # the name changed within transformers 5
        new, old = "activation_checkpointing_enable", "gradient_checkpointing_enable"
        getattr(network, new if hasattr(network, new) else old)({"use_reentrant": False})
    return network


def region_width(weights: str) -> int | None:
    """Width of the image regions that VisualBERT weights read; None where it is not known on this machine.

    Args:
        weights: hub id or local folder; nothing is downloaded.
    """
    from transformers import AutoConfig

    try:
        found = AutoConfig.from_pretrained(weights, local_files_only=True, trust_remote_code=False)
    except Exception:  # not here yet, or damaged, which loading says
        return _WIDTHS.get(weights)
    width: int | None = getattr(found, "visual_embedding_dim", None)
    return width


def check_width(weights: str, theirs: int | None, ours: int) -> None:
    """Refuses regions of another width than published weights were trained on.

    The projection of the regions would be left at random, and be frozen at random with the rest.

    Raises:
        UserError: they differ; the message has the choices.
    """
    if theirs is not None and theirs != ours:
        known = " (frcnn-vg: the published detector; torchvision/resnet50: a grid)" if theirs == 2048 else ""
        raise UserError(
            f"VisualBERT weights '{weights}' read image regions of width {theirs}, these have {ours}: set "
            f"data.init_args.encoder to one of width {theirs}{known}, or model.init_args.new_projection to true for a "
            "new projection, which is then trained"
        )


def load_bert(network: nn.Module, weights: str, *, new_projection: bool = False) -> None:
    """Loads published weights into a body.

    Args:
        network: from `build_bert`.
        weights: hub id or local folder.
        new_projection: leave the projection of image regions as it is, whatever the weights have.

    Raises:
        UserError: the weights cannot be reached, belong to a network of other sizes, or were trained on regions of
            another width.
    """
    state = _state_of(weights)
    own = {name: value for name, value in network.state_dict().items() if not new_projection or name not in _PROJECTION}
    wrong = [name for name in own if name not in state or state[name].shape != own[name].shape]
    if wrong == [_PROJECTION[0]] and wrong[0] in state:
        check_width(weights, state[wrong[0]].shape[1], own[wrong[0]].shape[1])
    if wrong:
        raise UserError(
            f"BERT weights '{weights}' do not match: {len(wrong)} tensors differ, first '{wrong[0]}'; remove "
            "layers, heads and bert_dim, and give weights of the same kind of network"
        )
    network.load_state_dict({name: state[name] for name in own}, strict=False)


def load_word_embeddings(table: nn.Embedding, weights: str) -> None:
    """Copies the word embeddings of published BERT weights.

    Args:
        table: receives them, `(V, W)`.
        weights: hub id or local folder.

    Raises:
        UserError: the weights cannot be reached, or the table has another shape.
    """
    words = _state_of(weights).get("embeddings.word_embeddings.weight")
    if words is None or words.shape != table.weight.shape:
        shape = None if words is None else tuple(words.shape)
        raise UserError(
            f"word embeddings of '{weights}' are {shape}, expected {tuple(table.weight.shape)}: set word_dim and "
            "data.init_args.tokenizer to those of the weights"
        )
    with torch.no_grad():
        table.weight.copy_(words)


def _state_of(weights: str) -> dict[str, Tensor]:
    from transformers import AutoModel

    local = check_local(weights)
    source = weights if local else hub_folder(weights)
    local = local or source != weights
    try:
        with quietly():
            loaded, names = AutoModel.from_pretrained(
                source,
                dtype=torch.float32,
                local_files_only=local or only_local(),
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # broken files raise a dozen types
        what = f"cannot be read ({reason(error)})" if local else "cannot be reached"
        raise UserError(f"BERT weights '{weights}' {what}; {WAYS_OUT}") from error
    # what the files lack was drawn at random
    return {name: value for name, value in loaded.state_dict().items() if name not in names["missing_keys"]}
