"""The published behaviour of OVSegmentor, defects included, for released weights and for comparison.

Everything in which the release differs from our default stands here; ARCHITECTURE.md says why the default differs.
The numbers in brackets are sections of the reference notes.

Shape letters: B samples, G groups, N patches, P pixels, E embedding, L tokens.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.batch import Batch, check_batch
from model.config import ModelConfig
from model.grouping import Assignment, GroupingBlock
from model.losses import contrastive
from model.matching import match
from model.ovsegmentor import Losses, OVSegmentor
from model.text import Tokens
from model.vit import Stem, token_at

MASK_SIDE = 224
"""side in pixels to which similarities are stretched before they are compared, whatever the image [5.2]"""


@dataclass(frozen=True)
class MaskTerms:
    """The mask loss and what it is made of."""

    loss: Tensor
    """scalar"""
    affinity_BG: Tensor
    """dot product of each group with the shared entity"""
    detached_BG: Tensor
    """groups that get no gradient"""
    matched_BG: Tensor
    """target mask of each predicted mask"""


class PaperSegmentor(OVSegmentor):
    """OVSegmentor as released."""

    behaviour = "paper"

    def __init__(self, config: ModelConfig, tokenizer: Any, architecture: Any = None) -> None:
        super().__init__(config, tokenizer, architecture)
        if self.completion is not None:
            assert isinstance(self.completion_projector, nn.Sequential)
            # Never synchronised, unlike the other two [3.1].
            self.completion_projector[1] = nn.BatchNorm1d(config.projector_width)
        for module in self.modules():
            if isinstance(module, GroupingBlock):
                module.noise = release_noise
            if isinstance(module, Stem):
                module.keeps_remainder = False  # what is left of an image behind the last whole patch is lost [9.4]

    def train(self, mode: bool = True) -> Self:
        """Set the mode of every part: a frozen text encoder keeps its dropout, the momentum encoder its noise [2.4]."""
        nn.Module.train(self, mode)
        return self

    def start_momentum(self) -> None:
        """Copy the image encoder as the momentum encoder."""
        self.momentum_encoder = copy.deepcopy(self.image_encoder).requires_grad_(False)

    def losses(self, batch: Batch) -> Losses:
        """Return the losses of the release. Captions must come padded as the release pads them, to 77 tokens [2.3]."""
        check_batch(batch, self.config, self.training)
        weight, scale = self.config.loss, self.scale()
        group_BGD, assignment, grid = self.image_encoder(batch.image)
        image_BE, group_BGE = self._project_image(group_BGD)
        cross = None
        if batch.cross_image is not None and weight.mask > 0:
            cross = self._encode_cross(batch.cross_image)
        caption_BE, _ = self._project_text(batch.caption)
        matching = contrastive(image_BE, caption_BE, scale)
        entity = mask = None
        if batch.question is not None and batch.answer is not None and weight.entity > 0:
            assert self.completion is not None
            _, question_BLD = self._project_text(batch.question)
            answer_BE, _ = self._project_text(batch.answer)
            # Padding is looked at, and equal answers are negatives of each other [4.2, 3.4].
            first_B = self.text_encoder.summary(batch.question)
            found_BE = self.completion_projector(self.completion(question_BLD, first_B, None, group_BGD))
            entity = contrastive(found_BE, answer_BE, scale)
        if cross is not None:
            assert batch.cross_entity is not None
            with torch.no_grad():
                entity_BE, _ = self._project_text(batch.cross_entity)
            mask = self.mask_terms(assignment, cross, grid, group_BGE.detach(), entity_BE).loss
        total = matching
        if entity is not None:
            total = total + weight.entity * entity
        if mask is not None and entity is not None:  # without the entity loss it is dropped from the total [3.5]
            total = total + weight.mask * mask
        return Losses(matching, entity, mask, None, None, total)

    forward = losses

    def mask_terms(
        self, assignment: Assignment, cross: Assignment, grid: tuple[int, int], group_BGE: Tensor, entity_BE: Tensor
    ) -> MaskTerms:
        """Return the cross-image mask loss between the image's queries and the cross image's masks [5]."""
        config = self.config.loss
        raw_BGN = self.image_encoder.similarity(assignment.query_BGD, cross.key_BND)
        prediction_BGP, target_BGP = (_stretch(x_BGN, grid) for x_BGN in (raw_BGN, cross.logits_BGN))
        affinity_BG = (group_BGE @ entity_BE[..., None])[..., 0]
        num_detached = int(affinity_BG.shape[1] * config.group_ratio)
        detached_BG = affinity_BG.topk(num_detached, dim=1, largest=False).indices
        kept_BG = torch.ones_like(affinity_BG).scatter_(1, detached_BG, 0.0)[..., None]
        prediction_BGP = torch.where(kept_BG > 0, prediction_BGP, prediction_BGP.detach())
        with torch.no_grad():
            cost_BGG = torch.cdist(F.normalize(prediction_BGP, dim=2), F.normalize(target_BGP, dim=2))
            matched_BG = match(cost_BGG)
            target_BGP = target_BGP.sigmoid()
            target_BGP = (target_BGP >= config.mask_threshold * target_BGP.amax(dim=2, keepdim=True)).to(raw_BGN.dtype)
            target_BGP = target_BGP.gather(1, matched_BG[..., None].expand(target_BGP.shape))
        low, high = prediction_BGP.amin(dim=2, keepdim=True), prediction_BGP.amax(dim=2, keepdim=True)
        prediction_BP = ((prediction_BGP - low) / (high - low)).flatten(1)  # a constant mask gives NaN [5.5]
        target_BP = target_BGP.flatten(1)
        overlap_B, area_B = (prediction_BP * target_BP).sum(dim=1), prediction_BP.sum(dim=1) + target_BP.sum(dim=1)
        num_masks = affinity_BG.shape[1]  # of one image: a sum over the batch, divided by the number of groups [5.6]
        loss = (1 - (2 * overlap_B + 1) / (area_B + 1)).sum() / num_masks
        return MaskTerms(loss, affinity_BG, detached_BG, matched_BG)

    def _project_image(self, group_BGD: Tensor) -> tuple[Tensor, Tensor]:
        """Project images, then groups: both feed the batch statistics [3.2]."""
        return self.image_projector(group_BGD.mean(dim=1)), self._project_groups(group_BGD)

    def _frozen(self, projector: nn.Module, x: Tensor) -> Tensor:
        """Project in the mode at hand: here nothing is kept from the batch statistics."""
        projected: Tensor = projector(x)
        return projected

    def _project_text(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Return projected captions, and tokens; in training these feed the statistics, padding included [3.2]."""
        token_BLD = self.text_encoder(tokens)
        caption_BE = self.text_projector(token_at(token_BLD, self.text_encoder.summary(tokens))[:, 0])
        self._feed(self.text_projector, token_BLD)
        return caption_BE, token_BLD

    @torch.no_grad()
    def _feed(self, projector: nn.Module, x: Tensor) -> None:
        """Move the projector's statistics as if `x` were projected; the projection itself is never used."""
        if projector.training and isinstance(projector, nn.Sequential):
            projector[:2](x.detach().flatten(0, -2))

    @torch.no_grad()
    def _encode_cross(self, cross_image: Tensor) -> Assignment:
        """Return the momentum encoder's assignment; in training its features feed the image projector's statistics."""
        encoder = self.momentum_encoder
        if encoder is None:
            raise ValueError("losses: the batch has a cross_image but there is no momentum encoder")
        if not self.training:
            return encoder.assign(cross_image)
        group_BGD, assignment, _ = encoder(cross_image)
        assert isinstance(assignment, Assignment)
        self._feed(self.image_projector, group_BGD.mean(dim=1))
        self._feed(self.image_projector, group_BGD)
        return assignment


def release_noise(logits_BGN: Tensor) -> Tensor:
    """Return Gumbel noise drawn as the release draws it, for one head."""
    zero, one = logits_BGN.new_tensor(0.0), logits_BGN.new_tensor(1.0)
    noise: Tensor = torch.distributions.Gumbel(zero, one).sample(logits_BGN[:, None].shape)  # type: ignore[no-untyped-call]
    return noise[:, 0]


def _stretch(x_BGN: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return similarities on the pixels, corners aligned [5.2]. Shapes: [B, G, N] -> [B, G, P]."""
    size = (MASK_SIDE, MASK_SIDE)
    maps = x_BGN.reshape(*x_BGN.shape[:2], *grid)
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True).flatten(2)
