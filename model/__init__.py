"""The model: image encoder with grouping, text encoder, losses, weights."""

from model.batch import Batch
from model.card import CardFacts, add_metrics
from model.config import ImageConfig, LossConfig, ModelConfig, TextConfig
from model.grouping import Assignment
from model.groupvit import load_groupvit
from model.losses import same_set_positives
from model.official import load_official
from model.ovsegmentor import Encoded, ImageFeatures, Losses, OVSegmentor, initial
from model.paper import PaperSegmentor
from model.text import TextFeatures, Tokens, learn_wordpiece, load_tokenizer

__all__ = [
    "Assignment",
    "Batch",
    "CardFacts",
    "Encoded",
    "ImageConfig",
    "ImageFeatures",
    "LossConfig",
    "Losses",
    "ModelConfig",
    "OVSegmentor",
    "PaperSegmentor",
    "TextConfig",
    "TextFeatures",
    "Tokens",
    "add_metrics",
    "initial",
    "learn_wordpiece",
    "load_groupvit",
    "load_official",
    "load_tokenizer",
    "same_set_positives",
]
