"""Configs of the model: plain frozen dataclasses that check themselves and survive JSON."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

T = TypeVar("T")

IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's channels, for pixels in [0, 1]: how DINO and every model here see images."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class ImageConfig:
    """The image encoder: stem, transformer blocks per encoder stage, grouping between the stages."""

    image_size: int = 224
    """side of the training image in pixels; other sizes interpolate the position table"""
    stem: Literal["patch", "conv"] = "patch"
    """`patch`: one linear layer per patch; `conv`: 3x3 convolutions, 15 px of receptive field at patch_size 4"""
    stem_layers: int = 1
    """`conv`: convolutions at the patches' resolution; each further one sees 2 patches more"""
    stem_norm: Literal["none", "batch", "layer"] = "none"
    """`batch` normalises each convolution of `conv` by the joint batch of all workers; `layer` normalises each patch
    of `patch` before its position is added (GroupViT)"""
    patch_size: int = 16
    """side of a patch in pixels, the stride of the stem; a power of two for `conv`"""
    width: int = 768
    """channels of patches and groups"""
    num_heads: int | tuple[int, ...] = 12
    """attention heads, the same or one number per encoder stage; must divide width"""
    depths: tuple[int, ...] = (6, 6)
    """transformer blocks per encoder stage; 0 is allowed"""
    num_group_tokens: tuple[int, ...] = (64,)
    """learned tokens that enter each stage but the last"""
    num_groups: tuple[int, ...] = (8,)
    """groups that leave each stage but the last"""
    query: Literal["residual", "assignment"] = "residual"
    """`residual`: a group's query is added to its value (the paper); `assignment`: it decides the assignment only"""
    similarity: Literal["dot", "cosine"] = "dot"
    """query times key over sqrt(width) (the paper), or their cosine times a learned scale"""
    gumbel: bool = True
    """add Gumbel noise (temperature 1) to the assignment in training"""
    assign_eps: float = 1.0
    """added to the number of patches of a group before its mean is taken; 1 as in GroupViT"""
    drop_path: float = 0.1
    """share of residual branches dropped in training, rising linearly to this with depth"""
    pretrained: str | None = None
    """timm's name of a vision transformer (DINO, DeiT, CLIP, ...), or a checkpoint file, that blocks start from"""

    def __post_init__(self) -> None:
        _require(self.patch_size >= 1, f"patch_size = {self.patch_size}: must be at least 1 pixel")
        _require(
            self.stem != "conv" or (self.patch_size >= 2 and self.patch_size & (self.patch_size - 1) == 0),
            f"patch_size = {self.patch_size}: stem 'conv' halves the image, use a power of two or stem 'patch'",
        )
        _require(
            self.stem_layers >= 1 and (self.stem == "conv" or self.stem_layers == 1),
            f"stem_layers = {self.stem_layers}: use at least 1, and stem 'conv' for more to have an effect",
        )
        _require(
            self.stem_norm == "none" or (self.stem, self.stem_norm) in (("conv", "batch"), ("patch", "layer")),
            f"stem_norm = {self.stem_norm!r}: stem {self.stem!r} knows 'none' and "
            f"{'batch' if self.stem == 'conv' else 'layer'!r}",
        )
        _require(
            self.image_size >= self.patch_size and self.image_size % self.patch_size == 0,
            f"image_size = {self.image_size}: must be a multiple of patch_size = {self.patch_size}",
        )
        _require(
            all(heads >= 1 and self.width % heads == 0 for heads in self.stage_heads),
            f"num_heads = {self.num_heads}: must divide width = {self.width}",
        )
        _require(
            len(self.stage_heads) == len(self.depths),
            f"num_heads = {self.num_heads}: must be one number or have as many entries as depths = {self.depths}",
        )
        _require(
            len(self.depths) == len(self.num_groups) + 1 == len(self.num_group_tokens) + 1 and len(self.depths) >= 2,
            f"depths = {self.depths}: must have one entry more than num_group_tokens = {self.num_group_tokens} "
            f"and num_groups = {self.num_groups}, and at least two",
        )
        _require(min(self.depths) >= 0, f"depths = {self.depths}: must not be negative")
        for name in ("num_group_tokens", "num_groups"):
            _require(min(getattr(self, name)) >= 1, f"{name} = {getattr(self, name)}: must be positive")
        _require(self.assign_eps > 0, f"assign_eps = {self.assign_eps}: must be positive, a group may be empty")
        _require(0 <= self.drop_path < 1, f"drop_path = {self.drop_path}: must be in [0, 1)")
        _require(
            self.pretrained is None or self.stem == "patch",
            f"pretrained = {self.pretrained!r}: a vision transformer's weights need stem 'patch', found {self.stem!r}",
        )

    @property
    def stage_heads(self) -> tuple[int, ...]:
        """Attention heads of each encoder stage."""
        return (self.num_heads,) * len(self.depths) if isinstance(self.num_heads, int) else self.num_heads


@dataclass(frozen=True)
class TextConfig:
    """The text encoder: an encoder of transformers, from pretrained weights or at random from these sizes."""

    pretrained: str | None = None
    """hub name or folder of an encoder; its own sizes then replace model_type, width, num_layers, num_heads"""
    model_type: str = "bert"
    """architecture in transformers' naming when pretrained is None: bert, roberta, ..., clip_text_model"""
    width: int = 768
    """channels of a token"""
    num_layers: int = 12
    """transformer layers"""
    num_heads: int = 12
    """attention heads; must divide width"""
    mlp_ratio: float = 4.0
    """hidden channels of a layer's MLP over width"""
    dropout: float = 0.1
    """dropout in layers and attention, in training"""
    max_length: int = 77
    """tokens of a caption; longer ones are cut by the tokenizer"""

    def __post_init__(self) -> None:
        _require(
            self.num_heads >= 1 and self.width % self.num_heads == 0,
            f"num_heads = {self.num_heads}: must divide width = {self.width}",
        )
        _require(self.num_layers >= 1, f"num_layers = {self.num_layers}: must be at least 1")
        _require(self.max_length >= 3, f"max_length = {self.max_length}: must hold first token, a word and last token")
        _require(0 <= self.dropout < 1, f"dropout = {self.dropout}: must be in [0, 1)")


@dataclass(frozen=True)
class LossConfig:
    """What is trained: a loss takes part when its weight is positive and the batch carries its inputs."""

    entity: float = 1.0
    """weight of masked entity completion"""
    mask: float = 1.6
    """weight of cross-image mask consistency (mean dice); the release's 0.1 is this at its batch of 128"""
    nouns: float = 0.0
    """weight of the multi-label contrastive loss over noun prompts"""
    words: float = 0.0
    """weight of masked language modelling, the objective that masked entity completion is compared with"""
    words_see: Literal["groups", "text"] = "groups"
    """what masked words are told from: the caption and the image's groups, or the caption alone"""
    noun_pooling: Literal["image", "groups"] = "image"
    """what a noun prompt is compared with: the image, or its groups pooled by log-mean-exp, so that one may fit"""
    share_positives: bool = False
    """captions with the same entity set are positives of each other; the batch must carry positives_BB"""
    group_ratio: float = 0.5
    """share of the groups, those closest to the shared entity, that mask consistency trains"""
    mask_threshold: float = 0.6
    """a target mask is where the similarity, scaled to [0, 1] over the image, reaches this"""
    temperature: float = 0.07
    """first temperature of the contrastive losses; the learned scale starts at its inverse"""
    max_scale: float = 100.0
    """upper bound of the learned scale"""

    def __post_init__(self) -> None:
        for name in ("entity", "mask", "nouns", "words"):
            _require(getattr(self, name) >= 0, f"{name} = {getattr(self, name)}: a weight must not be negative")
        _require(0 < self.group_ratio <= 1, f"group_ratio = {self.group_ratio}: must be in (0, 1]")
        _require(0 < self.mask_threshold <= 1, f"mask_threshold = {self.mask_threshold}: must be in (0, 1]")
        _require(
            self.temperature > 0 and 1 / self.temperature <= self.max_scale,
            f"temperature = {self.temperature}: its inverse must be positive and at most max_scale = {self.max_scale}",
        )


@dataclass(frozen=True)
class ModelConfig:
    """A whole OVSegmentor; the defaults are the paper's ViT-B with BERT-base sizes."""

    image: ImageConfig = field(default_factory=ImageConfig)
    """image encoder"""
    text: TextConfig = field(default_factory=TextConfig)
    """text encoder"""
    loss: LossConfig = field(default_factory=LossConfig)
    """losses and their weights"""
    embedding_width: int = 256
    """channels of the space that image and text share"""
    projector: Literal["mlp", "linear"] = "mlp"
    """`mlp`: two layers with batch statistics shared by all workers (the paper); `linear`: one layer"""
    projector_width: int = 4096
    """hidden channels of the `mlp` projector"""
    completion_heads: int = 8
    """attention heads of masked entity completion; must divide the narrower of the encoders' widths"""

    def __post_init__(self) -> None:
        for name in ("embedding_width", "projector_width"):
            _require(getattr(self, name) >= 1, f"{name} = {getattr(self, name)}: must be at least 1")
        _require(
            self.loss.mask == 0 or len(self.image.num_groups) == 1,
            f"loss.mask = {self.loss.mask}: mask consistency is defined for one grouping, found image.num_groups = "
            f"{self.image.num_groups}; set loss.mask = 0",
        )


def from_dict(cls: type[T], values: Mapping[str, Any]) -> T:
    """Return the config `cls` from nested plain values as JSON gives them; lists become tuples.

    Raises:
        ValueError: a key that `cls` does not have; the message lists the known ones.
    """
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"{cls.__name__} has no {', '.join(unknown)}; known are {', '.join(hints)}")
    return cls(**{name: _restore(hints[name], value) for name, value in values.items()})


def _restore(hint: Any, value: Any) -> Any:
    if isinstance(value, Mapping) and dataclasses.is_dataclass(hint):
        return from_dict(typing.cast("type[Any]", hint), value)
    return tuple(value) if isinstance(value, list) else value
