"""A Visual Genome detector of the published layout, but small, and its files."""

from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from networks.encoders.visual_genome.config import read_config
from networks.encoders.visual_genome.encoder import GenomeEncoder

SETTINGS = {
    "ANCHOR_GENERATOR": {"SIZES": [[16, 32]], "ASPECT_RATIOS": [[0.5, 1.0, 2.0]], "OFFSET": 0.0, "NAME": "Default"},
    "BACKBONE": {"FREEZE_AT": 0},
    "INPUT": {"FORMAT": "BGR", "MIN_SIZE_TEST": 64, "MAX_SIZE_TEST": 96},
    "MAX_DETECTIONS": 6,
    "MIN_DETECTIONS": 6,
    "MODEL": {"MAX_POOL": True, "PIXEL_MEAN": [103.0, 116.0, 123.0], "PIXEL_STD": [1.0, 1.0, 1.0], "DEVICE": "cuda"},
    "PROPOSAL_GENERATOR": {"HIDDEN_CHANNELS": 8, "MIN_SIZE": 0},
    "RESNETS": {
        **{"DEPTH": 50, "NORM": "BN", "NUM_GROUPS": 1, "WIDTH_PER_GROUP": 4, "STEM_OUT_CHANNELS": 4},
        **{"RES2_OUT_CHANNELS": 8, "STRIDE_IN_1X1": True, "RES5_DILATION": 1, "OUT_FEATURES": ["res4"]},
    },
    "ROI_BOX_HEAD": {
        **{"ATTR": True, "NUM_ATTRS": 3, "POOLER_RESOLUTION": 4, "RES5HALVE": False, "CLS_AGNOSTIC_BBOX_REG": False},
        "BBOX_REG_WEIGHTS": [10.0, 10.0, 5.0, 5.0],
    },
    "ROI_HEADS": {"NUM_CLASSES": 5, "NMS_THRESH_TEST": [0.6, 0.9]},
    "RPN": {
        **{"BBOX_REG_WEIGHTS": [1.0, 1.0, 1.0, 1.0], "NMS_THRESH": 0.7},
        **{"PRE_NMS_TOPK_TEST": 60, "POST_NMS_TOPK_TEST": 20},
    },
}
"""As ``config.yaml`` has them, with some that nobody reads."""
WIDTH, BOXES = 64, 6


def write_genome(folder: Path, file: str = "pytorch_model.bin", prefix: str = "") -> dict[str, Tensor]:
    """Writes settings and made-up weights into a folder; returns the weights by the names of the layout."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    torch.manual_seed(7)
    state = GenomeEncoder(config=read_config(folder / "config.yaml")).network.state_dict()
    for name, value in state.items():
        if "cls_score" in name or "objectness" in name:
            value.mul_(20)  # as sure as a trained one: scores in different places differ
    named = {prefix + name: value.contiguous() for name, value in state.items()}
    if file.endswith(".safetensors"):
        save_file(named, folder / file)
    else:
        torch.save(named, folder / file)
    return {name: value.clone() for name, value in state.items()}
