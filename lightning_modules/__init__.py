"""Lightning modules: what is optimised and what is logged."""

from lightning_modules.attention_rnn import AttentionRNN
from lightning_modules.base import METHODS
from lightning_modules.code_captioning import CodeCaptioning
from lightning_modules.distillation import Distillation
from lightning_modules.dual_transfer import DualTransfer
from lightning_modules.emotion_labeller import EmotionLabeller
from lightning_modules.emotion_transfer import EmotionTransfer
from lightning_modules.multilabel import MultiLabel
from lightning_modules.prefix_classifier import PrefixClassification
from lightning_modules.serving import LoadedCaptioner, LoadedClassifier, load_captioner, load_classifier
from lightning_modules.text_autoencoder import TextAutoencoding
from lightning_modules.transformer_captioner import TransformerCaptioner

__all__ = [
    "METHODS",
    "AttentionRNN",
    "CodeCaptioning",
    "Distillation",
    "DualTransfer",
    "EmotionLabeller",
    "EmotionTransfer",
    "LoadedCaptioner",
    "LoadedClassifier",
    "MultiLabel",
    "PrefixClassification",
    "TextAutoencoding",
    "TransformerCaptioner",
    "load_captioner",
    "load_classifier",
]
