"""Segmentation by words: regions of an image are compared with names, windows are averaged.

Shapes: B images or windows, C classes, W background words, R regions (groups, patches or clusters), E embedding,
H, W image size; h, w grid of patches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize, one_hot

from evaluation.config import Protocol
from evaluation.prompts import check_names, embed_names
from model import OVSegmentor
from model.config import IMAGE_MEAN, IMAGE_STD

BACKGROUND = "background"
PIXELS_PER_PASS = 32 * 224 * 224
"""pixels of the windows that go through the encoder together"""


class Segmenter:
    """A model asked for given classes under a protocol; the classes are embedded once.

    `classes` are names, of which a first one `background` follows the protocol's background rule, or vectors [N, E]
    made elsewhere, to which `has_background` puts background as a class before the first. Without a protocol a model of
    published behaviour follows the published one. The model is put into eval mode.
    """

    def __init__(
        self,
        model: OVSegmentor,
        classes: Sequence[str] | Tensor,
        protocol: Protocol | None = None,
        has_background: bool | None = None,
    ) -> None:
        self.model = model.eval()
        self.protocol = protocol or (Protocol.paper() if model.behaviour == "paper" else Protocol())
        is_named = not isinstance(classes, Tensor)
        self.has_background = is_named and list(classes[:1]) == [BACKGROUND]
        if has_background is not None and is_named and has_background != self.has_background:
            raise ValueError(f"has_background = {has_background}: names say so themselves, by a first {BACKGROUND!r}")
        if isinstance(classes, Tensor):
            self.class_CE = normalize(self._checked(classes), dim=-1)
            self.has_background = bool(has_background)
        else:
            check_names(classes)
            names = classes[1:] if self.has_background else classes
            check_names(names)
            self.class_CE = embed_names(model, names, self.protocol.templates)
        self.word_WE: Tensor | None = None
        if self.has_background and self.protocol.background == "words":
            self.word_WE = embed_names(model, self.protocol.background_words, self.protocol.background_templates)

    @property
    def num_classes(self) -> int:
        """Channels of the logits: all classes, background included."""
        return len(self.class_CE) + self.has_background

    @torch.inference_mode()
    def logits(self, image_BCHW: Tensor) -> Tensor:
        """Return scores of the classes (probabilities, averaged over windows) at the images' own size.

        Shapes: image_BCHW [B, 3, H, W], uint8, or float and normalised as encode_image takes it -> [B, C, H, W].
        """
        return slide(self._prepare(image_BCHW), self._score_groups, self.protocol, image_BCHW.shape[-2:])

    def segment(self, image_BCHW: Tensor) -> Tensor:
        """Return the label of every pixel, the position of its best class.

        Shapes: image_BCHW [B, 3, H, W] -> [B, H, W] int64.
        """
        return self.logits(image_BCHW).argmax(1)

    @torch.inference_mode()
    def groups(self, image_BCHW: Tensor) -> Tensor:
        """Return the group of every pixel, numbered through all windows; each pixel asks the window nearest to it.

        Shapes: image_BCHW [B, 3, H, W] -> [B, H, W] int64.
        """
        prepared_BCHW = self._prepare(image_BCHW)
        rows, columns = _windows(prepared_BCHW, self.protocol)
        owner_H, owner_W = (_nearest(windows, prepared_BCHW) for windows in (rows, columns))
        group_BHW = torch.zeros_like(prepared_BCHW[:, 0], dtype=torch.int64)
        for position, (row, column) in enumerate((row, column) for row in rows for column in columns):
            window_BCHW = prepared_BCHW[..., row, column]
            features = self.model.encode_image(window_BCHW)
            soft_BGN = features.assignment.soft_BGN
            chosen_BHW = self._to_pixels(soft_BGN, features.grid, window_BCHW).argmax(1) + position * soft_BGN.shape[1]
            mine_HW = (owner_H[row, None] == row.start) & (owner_W[None, column] == column.start)
            group_BHW[..., row, column] = torch.where(mine_HW, chosen_BHW, group_BHW[..., row, column])
        return interpolate(group_BHW[:, None].float(), image_BCHW.shape[-2:], mode="nearest-exact")[:, 0].long()

    @torch.inference_mode()
    def patch_cosines(self, image_BCHW: Tensor) -> Tensor:
        """Return the cosine of each pixel's patch with classes and background words: what is known without groups.

        Shapes: image_BCHW [B, 3, H, W] -> [B, C + W, H, W] (no channel for background itself).
        """

        def score(window_BCHW: Tensor) -> Tensor:
            cosine_BNC = self.cosine(self.model.patch_embedding(window_BCHW))
            return self._to_pixels(cosine_BNC.mT, self.model.grid(window_BCHW), window_BCHW)

        return slide(self._prepare(image_BCHW), score, self.protocol, image_BCHW.shape[-2:])

    def cosine(self, embedding_BRE: Tensor) -> Tensor:
        """Return cosines with all classes and background words. Shapes: [..., E] -> [..., C + W]."""
        name_KE = self.class_CE if self.word_WE is None else torch.cat([self.class_CE, self.word_WE])
        return normalize(embedding_BRE, dim=-1) @ name_KE.T

    @torch.inference_mode()
    def name(self, cosine_BRC: Tensor, image_cosine_BC: Tensor | None = None) -> Tensor:
        """Return the classes' probabilities of regions, background first where there is one.

        `image_cosine_BC`, of the whole image, is asked which classes may be named when the protocol limits them.
        Shapes: cosines [B, R, C + W] -> [B, R, C].
        """
        num_named = len(self.class_CE)
        logit_BRC = cosine_BRC * self.model.scale()
        if self.word_WE is not None:
            word_BR1 = logit_BRC[..., num_named:].amax(-1, keepdim=True)
            logit_BRC = torch.cat([word_BR1, logit_BRC[..., :num_named]], -1)
        probability_BRC = logit_BRC.softmax(-1)
        if self.protocol.top_classes is not None and image_cosine_BC is not None:
            allowed_BC = _top(image_cosine_BC[:, :num_named], self.protocol.top_classes)
            if self.word_WE is not None:
                allowed_BC = torch.cat([torch.ones_like(allowed_BC[:, :1]), allowed_BC], -1)
            probability_BRC = probability_BRC * logit_BRC.masked_fill(~allowed_BC[:, None], -torch.inf).softmax(-1)
        if self.has_background and self.word_WE is None:
            best_BR = probability_BRC.amax(-1)
            limit_B1 = best_BR.amax(-1, keepdim=True).clamp(max=self.protocol.threshold)
            unsure_BR1 = (best_BR < limit_B1)[..., None].to(probability_BRC.dtype)
            probability_BRC = torch.cat([unsure_BR1, probability_BRC], -1)
        return probability_BRC

    def _prepare(self, image_BCHW: Tensor) -> Tensor:
        if image_BCHW.ndim != 4 or image_BCHW.shape[1] != 3 or 0 in image_BCHW.shape:
            raise ValueError(f"image_BCHW: expected images [batch, 3, height, width], found {tuple(image_BCHW.shape)}")
        image_BCHW = image_BCHW.to(self.model.logit_scale.device)
        has_pixels = image_BCHW.dtype == torch.uint8
        if has_pixels:
            image_BCHW = image_BCHW / 255
        size = resized(image_BCHW.shape[-2], image_BCHW.shape[-1], self.protocol)
        if size != tuple(image_BCHW.shape[-2:]):
            image_BCHW = interpolate(image_BCHW, size, mode="bilinear", antialias=True)
        if has_pixels:
            mean_C11, std_C11 = (image_BCHW.new_tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
            image_BCHW = (image_BCHW - mean_C11) / std_C11
        return image_BCHW

    def _checked(self, class_CE: Tensor) -> Tensor:
        width = self.model.config.embedding_width
        if class_CE.ndim != 2 or class_CE.shape[1] != width or not len(class_CE):
            raise ValueError(f"classes: expected vectors [classes, {width}], found {tuple(class_CE.shape)}")
        return class_CE.to(self.model.logit_scale.device)

    def _score_groups(self, window_BCHW: Tensor) -> Tensor:
        features = self.model.encode_image(window_BCHW)
        score_BGC = self.name(self.cosine(features.group_embedding_BGE), self.cosine(features.embedding_BE))
        share_BGHW = self._to_pixels(features.assignment.soft_BGN, features.grid, window_BCHW)
        if self.protocol.assignment == "hard":
            share_BGHW = one_hot(share_BGHW.argmax(1), share_BGHW.shape[1]).movedim(-1, 1).to(score_BGC.dtype)
        return torch.einsum("bgc,bghw->bchw", score_BGC, share_BGHW)

    def _to_pixels(self, value_BKN: Tensor, grid: tuple[int, int], window_BCHW: Tensor) -> Tensor:
        # Patches may reach beyond the window: that is cut off again. If they end before it, they are stretched over it.
        height, width = window_BCHW.shape[-2:]
        side = self.model.config.image.patch_size
        size = (max(height, grid[0] * side), max(width, grid[1] * side))
        value_BKHW = value_BKN.reshape(*value_BKN.shape[:2], *grid)
        return interpolate(value_BKHW, size, mode="bilinear")[..., :height, :width]


def slide(
    image_BCHW: Tensor, score: Callable[[Tensor], Tensor], protocol: Protocol, size: Sequence[int] | None = None
) -> Tensor:
    """Return a map averaged over the windows of an image, resized to `size`.

    Windows of all images go through `score` in batches. Shapes: score: window [B, 3, h, w] -> [B, K, h, w].
    """
    rows, columns = _windows(image_BCHW, protocol)
    places = [(image, row, column) for row in rows for column in columns for image in range(len(image_BCHW))]
    window_area = (rows[0].stop - rows[0].start) * (columns[0].stop - columns[0].start)
    per_pass = max(1, PIXELS_PER_PASS // window_area)
    total_BKHW: Tensor | None = None
    count_HW = image_BCHW.new_zeros(image_BCHW.shape[-2:])
    for start in range(0, len(places), per_pass):
        batch = places[start : start + per_pass]
        scored_BKHW = score(torch.stack([image_BCHW[image, :, row, column] for image, row, column in batch]))
        if total_BKHW is None:
            total_BKHW = scored_BKHW.new_zeros(len(image_BCHW), scored_BKHW.shape[1], *image_BCHW.shape[-2:])
        for (image, row, column), scored_KHW in zip(batch, scored_BKHW, strict=True):
            total_BKHW[image, :, row, column] += scored_KHW
    for row in rows:
        for column in columns:
            count_HW[row, column] += 1
    assert total_BKHW is not None
    mean_BKHW = total_BKHW / count_HW
    if size is None or tuple(size) == tuple(mean_BKHW.shape[-2:]):
        return mean_BKHW
    return interpolate(mean_BKHW, tuple(size), mode="bilinear")


def resized(height: int, width: int, protocol: Protocol) -> tuple[int, int]:
    """Return the size that the protocol gives an image before anything is cut from it."""
    if protocol.shorter_side is None:
        return height, width
    scale = protocol.shorter_side / min(height, width)
    if protocol.longest_side is not None:
        scale = min(scale, protocol.longest_side / max(height, width))
    return round(height * scale), round(width * scale)


def window_slices(length: int, window: int | None, stride: int | None) -> list[slice]:
    """Return the windows along one side; the last one is shifted back so that it ends with the image."""
    if window is None or window >= length:
        return [slice(0, length)]
    step = stride or window
    starts = [*range(0, length - window, step), length - window]
    return [slice(start, start + window) for start in starts]


def _windows(image_BCHW: Tensor, protocol: Protocol) -> tuple[list[slice], list[slice]]:
    height, width = image_BCHW.shape[-2:]
    return (
        window_slices(height, protocol.window, protocol.stride),
        window_slices(width, protocol.window, protocol.stride),
    )


def _nearest(windows: list[slice], like: Tensor) -> Tensor:
    # Start of the window whose middle is nearest, for each pixel along one side.
    middle_K = like.new_tensor([(window.start + window.stop - 1) / 2 for window in windows])
    start_K = torch.tensor([window.start for window in windows], device=like.device)
    pixel_L = torch.arange(windows[-1].stop, device=like.device)
    return start_K[(pixel_L[:, None] - middle_K).abs().argmin(1)]


def _top(cosine_BC: Tensor, count: int) -> Tensor:
    position_BK = cosine_BC.topk(min(count, cosine_BC.shape[-1]), -1).indices
    return torch.zeros_like(cosine_BC, dtype=torch.bool).scatter(-1, position_BK, True)
