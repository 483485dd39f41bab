"""The model: images and captions into one space, patches into groups, and what is trained.

Shape letters: B samples, G groups, N patches, D width of an encoder, E embedding, L tokens.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from model import losses, weights
from model.backbone import load_backbone
from model.batch import Batch, caption_ids, check_batch, check_image
from model.card import CardFacts
from model.checkpoint import LoadReport
from model.completion import EntityCompletion
from model.config import ModelConfig
from model.grouping import Assignment, EncoderStage, ImageEncoder
from model.projector import build_projector
from model.text import (
    EncodedCaptions,
    TextEncoder,
    TextFeatures,
    Tokens,
    load_pretrained_weights,
    text_architecture,
    tokenize,
)
from model.vit import Block, token_at
from model.words import WordPrediction


@dataclass(frozen=True)
class ImageFeatures:
    """What the image encoder makes of images."""

    embedding_BE: Tensor
    """images in the space shared with text; not normalised"""
    group_embedding_BGE: Tensor
    """groups in the space shared with text; not normalised"""
    group_BGD: Tensor
    """groups after the last norm"""
    assignment: Assignment
    """soft_BGN, query_BGD, key_BND of the patches in reading order"""
    grid: tuple[int, int]
    """rows and columns of the patches; they cover ceil(side / patch size) patches of each side"""


@dataclass(frozen=True)
class Encoded:
    """All that heads and losses see of a batch: what the encoders make of it. None where no loss asks for it."""

    group_BGD: Tensor
    """groups after the last norm"""
    query_BGD: Tensor
    """queries of the groups"""
    caption_BD: Tensor
    """captions"""
    question_BLD: Tensor | None
    """tokens of the masked captions; of no meaning beyond a caption's end"""
    question_B: Tensor | None
    """position of the token that stands for a masked caption"""
    answer_BD: Tensor | None
    """prompts that name the masked entities"""
    cross_entity_BD: Tensor | None
    """prompts that name the shared entity"""
    cross_logits_BGN: Tensor | None
    """the momentum encoder's assignment of the cross image's patches"""
    cross_key_BND: Tensor | None
    """the momentum encoder's keys of the cross image's patches"""
    noun_ND: Tensor | None
    """noun prompts"""
    masked_BLD: Tensor | None
    """tokens of the captions with masked words; of no meaning beyond a caption's end"""


@dataclass(frozen=True)
class Losses:
    """Scalars; None where the batch or the config leaves a loss out."""

    contrastive: Tensor
    entity: Tensor | None
    mask: Tensor | None
    nouns: Tensor | None
    words: Tensor | None
    total: Tensor
    """the weighted sum, to be minimised"""


class OVSegmentor(nn.Module):
    """Groups of patches that speak the language of captions.

    Source: Xu et al., CVPR 2023, arXiv 2301.09121.
    """

    behaviour = "default"
    """stored with the weights; `paper` is PaperSegmentor's"""

    def __init__(self, config: ModelConfig, tokenizer: Any, architecture: Any = None) -> None:
        """Build with random weights; `architecture` is a transformers config that overrules `config.text`'s sizes."""
        super().__init__()
        self.config, self.tokenizer = config, tokenizer
        self.architecture = architecture or text_architecture(config.text, tokenizer)
        self.image_encoder = ImageEncoder(config.image)
        self.text_encoder = TextEncoder(self.architecture)
        self.image_projector = build_projector(config.image.width, config)
        self.text_projector = build_projector(self.text_encoder.width, config)
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(config.loss.temperature)))
        self.completion: EntityCompletion | None = None
        words_see_groups = config.loss.words > 0 and config.loss.words_see == "groups"
        if config.loss.entity > 0 or words_see_groups:
            self.completion = EntityCompletion(config.image.width, self.text_encoder.width, config.completion_heads)
        if config.loss.entity > 0:
            assert self.completion is not None
            self.completion_projector = build_projector(self.completion.width, config)
        self.word_prediction: WordPrediction | None = None
        if config.loss.words > 0:
            pieces = self.text_encoder.piece_VD
            width = self.completion.width if words_see_groups and self.completion else self.text_encoder.width
            self.word_prediction = WordPrediction(width, pieces.shape[1], len(pieces))
        self.momentum_encoder: ImageEncoder | None = None
        self.load_report: LoadReport | None = None
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> OVSegmentor:
        """Return the model that `save_pretrained` wrote, in eval mode and without a momentum encoder."""
        return weights.load(cls, Path(folder))

    def save_pretrained(self, folder: Path | str, facts: CardFacts | None = None) -> None:
        """Write config.json, weights, tokenizer and the model card README.md, without the momentum encoder."""
        weights.save(self, Path(folder), facts)

    def tokenize(self, captions: Sequence[str]) -> Tokens:
        """Return the captions as tokens on the model's device, cut at the config's max_length."""
        return tokenize(self.tokenizer, captions, self.config.text.max_length).to(self.logit_scale.device)

    def scale(self) -> Tensor:
        """Return the factor between cosine and logit of the contrastive losses."""
        return self.logit_scale.exp().clamp(max=self.config.loss.max_scale)

    def encode_image(self, image_BCHW: Tensor) -> ImageFeatures:
        """Return embeddings, groups and their masks.

        Shapes: image_BCHW [B, 3, H, W] of any size, normalised -> see ImageFeatures.

        Raises:
            ValueError: another shape, or a value that is not finite.
        """
        check_image(image_BCHW, finite=True)
        group_BGD, assignment, grid = self.image_encoder(image_BCHW)
        embedding_BE = self.image_projector(group_BGD.mean(dim=1))
        return ImageFeatures(embedding_BE, self._project_groups(group_BGD), group_BGD, assignment, grid)

    def encode_text(self, tokens: Tokens) -> TextFeatures:
        """Return embeddings and tokens of captions. Shapes: see TextFeatures."""
        token_BLD = self.text_encoder(tokens)
        summary_BD = token_at(token_BLD, self.text_encoder.summary(tokens))[:, 0]
        return TextFeatures(self.text_projector(summary_BD), token_BLD)

    def grid(self, image_BCHW: Tensor) -> tuple[int, int]:
        """Return rows and columns of the patches of images of this size."""
        return self.image_encoder.stem.grid(image_BCHW.shape[-2], image_BCHW.shape[-1])

    def patch_embedding(self, image_BCHW: Tensor) -> Tensor:
        """Return each patch in the shared space as if it were a group of its own: naming without groups.

        Shapes: image_BCHW [B, 3, H, W] -> [B, N, E], patches in reading order, not normalised.
        """
        check_image(image_BCHW, finite=True)
        return self._project_groups(self.image_encoder.patches(image_BCHW))

    def losses(self, batch: Batch) -> Losses:
        """Return the losses of a batch; in training mode with dropout, noise and batch statistics."""
        check_batch(batch, self.config, self.training)
        return self.losses_of(self.encode(batch), batch)

    forward = losses

    def encode(self, batch: Batch) -> Encoded:
        """Return what the encoders make of a batch, a sample alone as in a batch; heads and losses come after it."""
        texts = self._read(batch)
        group_BGD, assignment, _ = self.image_encoder(batch.image)
        question, nouns, masked = texts.get("question"), texts.get("nouns"), texts.get("masked")
        summary = {name: texts[name].summary_BD for name in ("answer", "cross_entity") if name in texts}
        cross = self._cross(batch.cross_image) if "cross_entity" in texts else None
        return Encoded(
            group_BGD=group_BGD,
            query_BGD=assignment.query_BGD,
            caption_BD=texts["caption"].summary_BD,
            question_BLD=None if question is None else question.token_BLD,
            question_B=None if question is None else question.summary_B,
            answer_BD=summary.get("answer"),
            cross_entity_BD=summary.get("cross_entity"),
            cross_logits_BGN=None if cross is None else cross.logits_BGN,
            cross_key_BND=None if cross is None else cross.key_BND,
            noun_ND=None if nouns is None else nouns.summary_BD,
            masked_BLD=None if masked is None else masked.token_BLD,
        )

    def losses_of(self, encoded: Encoded, batch: Batch) -> Losses:
        """Return the losses of a batch from what the encoders made of it."""
        weight, scale = self.config.loss, self.scale()
        image_BE = self.image_projector(encoded.group_BGD.mean(dim=1))
        caption_BE = self.text_projector(encoded.caption_BD)
        contrastive = losses.contrastive(image_BE, caption_BE, scale, batch.positives_BB)
        entity = mask = nouns = words = None
        if encoded.question_BLD is not None:
            entity = self._entity_loss(encoded, batch, scale)
        if encoded.cross_entity_BD is not None:
            mask = self._mask_loss(encoded, batch)
        if encoded.noun_ND is not None:
            assert batch.noun_labels_BN is not None
            prompt_NE = self.text_projector(encoded.noun_ND)
            fits = image_BE if weight.noun_pooling == "image" else self._project_groups(encoded.group_BGD)
            nouns = losses.multi_label_contrastive(fits, prompt_NE, batch.noun_labels_BN, scale)
        if encoded.masked_BLD is not None:
            words = self._word_loss(encoded.masked_BLD, encoded.group_BGD, batch)
        shares = (1.0, weight.entity, weight.mask, weight.nouns, weight.words)
        parts = zip(shares, (contrastive, entity, mask, nouns, words), strict=True)
        total = torch.stack([share * loss for share, loss in parts if loss is not None]).sum()
        return Losses(contrastive, entity, mask, nouns, words, total)

    def start_momentum(self) -> None:
        """Copy the image encoder as the momentum encoder; call it when phase 2 begins, before wrapping in DDP."""
        self.momentum_encoder = copy.deepcopy(self.image_encoder).requires_grad_(False).eval()

    @torch.no_grad()
    def update_momentum(self, coefficient: float) -> None:
        """Move the momentum encoder towards the image encoder: new = coefficient x old + (1 - coefficient) x online."""
        if self.momentum_encoder is None:
            raise ValueError("update_momentum: there is no momentum encoder; call start_momentum first")
        slow: list[Tensor] = list(self.momentum_encoder.parameters())
        fast: list[Tensor] = list(self.image_encoder.parameters())
        torch._foreach_lerp_(slow, fast, 1 - coefficient)
        for statistic, newest in zip(self.momentum_encoder.buffers(), self.image_encoder.buffers(), strict=True):
            statistic.copy_(newest)

    def recompute_activations(self) -> None:
        """Keep no activations of transformer blocks for the backward pass: less memory, a third more work."""
        for module in self.image_encoder.modules():
            if isinstance(module, EncoderStage):
                module.recompute = True
        # The name of transformers 5.17; 5.23 warns that version 6 will rename it.
        self.text_encoder.transformer.gradient_checkpointing_enable({"use_reentrant": False})

    def compile_blocks(self) -> None:
        """Compile the transformer blocks of all encoders, each kind once; call it after start_momentum."""
        for block in self.modules():
            if isinstance(block, Block):
                block.compile()
        for layer in self.text_encoder.layers():
            layer.compile(dynamic=True)

    def freeze_text(self) -> None:
        """Stop training the text encoder (phase 2); its projector goes on."""
        self.text_encoder.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training mode, but a frozen text encoder and the momentum encoder stay in eval mode: no dropout there."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.text_encoder.parameters()):
            self.text_encoder.eval()
        if self.momentum_encoder is not None:
            self.momentum_encoder.eval()
        return self

    def _read(self, batch: Batch) -> dict[str, EncodedCaptions]:
        """Return all texts that a loss needs after the text encoder."""
        weight = self.config.loss
        wanted = {
            "caption": batch.caption,
            "question": batch.question if weight.entity > 0 else None,
            "answer": batch.answer if weight.entity > 0 else None,
            "cross_entity": batch.cross_entity if weight.mask > 0 else None,
            "nouns": batch.nouns if weight.nouns > 0 else None,
            "masked": batch.masked if weight.words > 0 else None,
        }
        parts = {name: tokens for name, tokens in wanted.items() if tokens is not None}
        return dict(zip(parts, self.text_encoder.together(list(parts.values())), strict=True))

    @torch.no_grad()
    def _cross(self, cross_image: Tensor | None) -> Assignment:
        if self.momentum_encoder is None:
            raise ValueError(
                "losses: the batch has a cross_image but there is no momentum encoder; call start_momentum"
            )
        assert cross_image is not None
        return self.momentum_encoder.assign(cross_image)

    def _entity_loss(self, encoded: Encoded, batch: Batch, scale: Tensor) -> Tensor:
        assert self.completion is not None
        assert batch.question is not None
        assert batch.answer is not None
        assert encoded.question_BLD is not None
        assert encoded.question_B is not None
        mask_BL = batch.question.attention_mask_BL[:, : encoded.question_BLD.shape[1]]
        found_BD = self.completion(encoded.question_BLD, encoded.question_B, mask_BL, encoded.group_BGD)
        found_BE = self.completion_projector(found_BD)
        answer_BE = self.text_projector(encoded.answer_BD)
        positives_BA = losses.same_set_positives(caption_ids(batch.answer))
        if batch.positives_BB is not None:
            positives_BA = positives_BA | batch.positives_BB
        return losses.contrastive(found_BE, answer_BE, scale, positives_BA)

    def _word_loss(self, masked_BLD: Tensor, group_BGD: Tensor, batch: Batch) -> Tensor:
        assert self.word_prediction is not None
        assert batch.masked is not None
        assert batch.masked_target_BL is not None
        length = masked_BLD.shape[1]
        if self.config.loss.words_see == "groups":
            assert self.completion is not None
            masked_BLD = self.completion.tokens(masked_BLD, batch.masked.attention_mask_BL[:, :length], group_BGD)
        target_BL = batch.masked_target_BL[:, :length]
        is_masked_BL = target_BL >= 0
        logits_MV = self.word_prediction(masked_BLD[is_masked_BL], self.text_encoder.piece_VD)
        return losses.word_prediction(logits_MV, target_BL[is_masked_BL])

    def _mask_loss(self, encoded: Encoded, batch: Batch) -> Tensor:
        assert encoded.cross_entity_BD is not None
        assert encoded.cross_key_BND is not None
        assert encoded.cross_logits_BGN is not None
        with torch.no_grad():
            entity_BE = self._frozen(self.text_projector, encoded.cross_entity_BD.detach())
            affinity_BG = (self._project_groups(encoded.group_BGD.detach()) @ entity_BE[..., None])[..., 0]
        weight = self.config.loss
        return losses.mask_consistency(
            self.image_encoder.similarity(encoded.query_BGD, encoded.cross_key_BND),
            encoded.cross_logits_BGN,
            affinity_BG,
            weight.group_ratio,
            weight.mask_threshold,
            batch.has_cross_B,
        )

    def _project_groups(self, group_BGD: Tensor) -> Tensor:
        rows = self._frozen(self.image_projector, group_BGD.flatten(0, 1))
        return rows.reshape(*group_BGD.shape[:2], -1)

    def _frozen(self, projector: nn.Module, x: Tensor) -> Tensor:
        """Project with running statistics: only whole images and captions may move them."""
        mode = projector.training
        projector.eval()
        projected: Tensor = projector(x)
        projector.train(mode)
        return projected


def initial(config: ModelConfig, tokenizer: Any, seed: int) -> OVSegmentor:
    """Return a new model: the same config, tokenizer and seed give the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = OVSegmentor(config, tokenizer)
        if config.text.pretrained is not None:
            load_pretrained_weights(model.text_encoder, config.text.pretrained)
        if config.image.pretrained is not None:
            load_backbone(model.image_encoder, config.image, config.image.pretrained)
    return model
