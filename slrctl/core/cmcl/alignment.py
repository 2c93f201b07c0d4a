"""The alignment term: streams of a clip in a common space, by their cosines or by contrast."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from slrctl.core.clip import ClipBatch
from slrctl.core.cmcl.consistency import masked_mean
from slrctl.core.model.fusion import Streams
from slrctl.settings import CMCLSettings


def mean_over_frames(
    features: Float[Tensor, "B T D"], is_present: Bool[Tensor, "B T"]
) -> Float[Tensor, "B D"]:
    """Average the present frames of each clip; 0 where there is none."""
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    kept = torch.where(is_present[..., None], features, 0.0)
    return kept.sum(1) / is_present.sum(1, keepdim=True).clamp(min=1)


def stream_means(features: Streams, batch: ClipBatch) -> Streams:
    """Average each stream over the frames that show it: three embeddings `B D`."""
    return Streams(
        mean_over_frames(features.left_hand, batch.left_is_present),
        mean_over_frames(features.right_hand, batch.right_is_present),
        mean_over_frames(features.body, batch.is_valid),
    )


class StreamProjections(nn.Module):
    """A linear map per stream to a common width, for alignment only."""

    def __init__(self, projection_dim: int, stream_dims: Sequence[int]) -> None:
        super().__init__()
        left_dim, right_dim, body_dim = stream_dims
        self.left_hand = nn.Linear(left_dim, projection_dim)
        self.right_hand = nn.Linear(right_dim, projection_dim)
        self.body = nn.Linear(body_dim, projection_dim)

    def forward(self, means: Streams) -> Float[Tensor, "3 B D"]:
        """Project the embedding of each stream."""
        left_hand, right_hand = self.left_hand(means.left_hand), self.right_hand(means.right_hand)
        return torch.stack([left_hand, right_hand, self.body(means.body)])


# The pairs of streams that are compared: left with right hand, and either hand with the body.
_FIRST, _SECOND = [0, 0, 1], [1, 2, 2]


def _pairs(has_left: Bool[Tensor, " B"], has_right: Bool[Tensor, " B"]) -> Bool[Tensor, "3 B"]:
    """Say of each pair of streams which clips show both."""
    return torch.stack([has_left & has_right, has_left, has_right])


def alignment_per_clip(
    embeddings: Float[Tensor, "3 B D"], has_left: Bool[Tensor, " B"], has_right: Bool[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """Return `alignment_loss` of each clip; 0 where it shows no hand."""
    cosines = F.cosine_similarity(embeddings[_FIRST], embeddings[_SECOND], dim=-1)
    return -masked_mean(cosines.mT, _pairs(has_left, has_right).mT)


def has_negatives(
    target: Int64[Tensor, " B"], has_left: Bool[Tensor, " B"], has_right: Bool[Tensor, " B"]
) -> Bool[Tensor, " B"]:
    """Select the clips with a pair of streams that another clip, of another gloss, has too."""
    is_other_gloss = target[:, None] != target
    left, right = ((is_other_gloss & has).any(-1) & has for has in (has_left, has_right))
    return left | right


def contrastive_per_clip(
    embeddings: Float[Tensor, "3 B D"],
    target: Int64[Tensor, " B"],
    has_left: Bool[Tensor, " B"],
    has_right: Bool[Tensor, " B"],
    temperature: float,
) -> Float[Tensor, " B"]:
    """Return `contrastive_loss` of each clip among the others; 0 where it has no negative."""
    if not temperature > 0:
        raise ValueError(f"temperature ({temperature}) must be above 0")
    unit = F.normalize(embeddings, dim=-1)
    similarity = unit[_FIRST] @ unit[_SECOND].mT / temperature  # 3 B B
    has_pair = _pairs(has_left, has_right)
    is_negative = (target[:, None] != target) & has_pair[:, :, None] & has_pair[:, None, :]
    is_compared = is_negative | torch.eye(len(target), dtype=torch.bool, device=target.device)
    # A finite floor, for -inf would give NaN gradients in a row without a negative.
    floor = torch.finfo(similarity.dtype).min / 4
    forth, back = (
        scores.masked_fill(~is_compared, floor).log_softmax(-1).diagonal(dim1=-2, dim2=-1)
        for scores in (similarity, similarity.mT)
    )
    return masked_mean(-(forth + back).mT / 2, is_negative.any(-1).mT)


class ClipFacts(NamedTuple):
    """The gloss of each clip and the hands that it shows at all."""

    target: Int64[Tensor, " B"]
    has_left: Bool[Tensor, " B"]
    has_right: Bool[Tensor, " B"]

    @classmethod
    def of(cls, batch: ClipBatch) -> "ClipFacts":
        if batch.target is None:
            raise ValueError(
                "the loss needs targets, but batch.target is None; collate with classes"
            )
        return cls(batch.target, batch.left_is_present.any(-1), batch.right_is_present.any(-1))


def is_aligned(clips: ClipFacts, settings: CMCLSettings) -> Bool[Tensor, " B"]:
    """Select the clips that contribute to alignment in the form the settings name."""
    if settings.alignment == "contrastive":
        return has_negatives(*clips)
    return clips.has_left | clips.has_right


def aligned_per_clip(
    scales: Float[Tensor, "S 3 B D"], clips: ClipFacts, settings: CMCLSettings
) -> Float[Tensor, " B"]:
    """Return the alignment of each clip in the form the settings name, the mean over the scales."""
    if settings.alignment == "contrastive":
        temperature = settings.contrastive_temperature
        values = [contrastive_per_clip(streams, *clips, temperature) for streams in scales]
    else:
        hands = clips.has_left, clips.has_right
        values = [alignment_per_clip(streams, *hands) for streams in scales]
    return torch.stack(values).mean(0)


class Contrast(NamedTuple):
    """Contrastive alignment of some clips among all clips of a batch.

    `gradient` is that of the sum over all clips of the batch, for the embeddings of these. So the
    model can be differentiated in micro-batches (GradCache: Gao et al. 2021).
    """

    values: Float[Tensor, " B"]
    contributes: Bool[Tensor, " B"]
    gradient: Float[Tensor, "S 3 B D"]

    @classmethod
    def of_batch(
        cls, scales: Float[Tensor, "S 3 B D"], clips: ClipFacts, settings: CMCLSettings
    ) -> "Contrast":
        """Compare all clips of a batch."""
        scales = scales.detach().requires_grad_()
        values = aligned_per_clip(scales, clips, settings)
        (gradient,) = torch.autograd.grad(values.sum(), scales)
        return cls(values.detach(), is_aligned(clips, settings), gradient)

    def of_clips(self, clips: slice) -> "Contrast":
        """Return the contrast of a micro-batch."""
        return Contrast(self.values[clips], self.contributes[clips], self.gradient[:, :, clips])

    def per_clip(self, scales: Float[Tensor, "S 3 B D"]) -> Float[Tensor, " B"]:
        """Return the values with their gradient for the embeddings they were computed from."""
        linear = (scales * self.gradient).sum(dim=(0, 1, 3))
        return self.values + (linear - linear.detach())


def alignment_loss(
    left_hand: Float[Tensor, "B D"],
    right_hand: Float[Tensor, "B D"],
    body: Float[Tensor, "B D"],
    left_is_present: Bool[Tensor, " B"] | None = None,
    right_is_present: Bool[Tensor, " B"] | None = None,
) -> Float[Tensor, ""]:
    """-mean( cos(f_l, f_r), cos(f_l, f_b), cos(f_r, f_b) ), in [-1, 1].

    The embeddings are in a common width. The masks say which clips show a hand at all; absent, all
    do. A pair with an absent hand is left out of its clip's mean; a clip without any hand
    contributes nothing. Without a contributing clip the result is exactly 0 with a working
    backward.
    """
    has_left, has_right = _presence(body, left_is_present, right_is_present)
    embeddings = _in_float32(left_hand, right_hand, body)
    return masked_mean(alignment_per_clip(embeddings, has_left, has_right), has_left | has_right)


def contrastive_loss(
    left_hand: Float[Tensor, "B D"],
    right_hand: Float[Tensor, "B D"],
    body: Float[Tensor, "B D"],
    target: Int64[Tensor, " B"],
    left_is_present: Bool[Tensor, " B"] | None = None,
    right_is_present: Bool[Tensor, " B"] | None = None,
    *,
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE of the three pairs of streams, in nats.

    For each pair the two streams of a clip are each other's positive; streams of clips of another
    gloss are negatives, those of the same gloss are neither (van den Oord et al. 2018, eq. 4, both
    ways as in Radford et al. 2021). Constant embeddings cost log(1 + negatives): unlike the mean
    cosine, this form is not satisfied by a collapse.

    Embeddings and masks are those of `alignment_loss`, `target` the label of each clip; cosines
    are divided by the temperature. The result is the mean over contributing clips of the mean over
    their pairs. A pair counts for a clip if it shows both streams and another clip gives a
    negative; without any, the result is exactly 0 with a working backward.
    """
    has_left, has_right = _presence(body, left_is_present, right_is_present)
    embeddings = _in_float32(left_hand, right_hand, body)
    per_clip = contrastive_per_clip(embeddings, target, has_left, has_right, temperature)
    return masked_mean(per_clip, has_negatives(target, has_left, has_right))


def _in_float32(*embeddings: Float[Tensor, "B D"]) -> Float[Tensor, "3 B D"]:
    streams = torch.stack(embeddings)
    return streams.to(torch.promote_types(streams.dtype, torch.float32))


def _presence(
    body: Tensor, left: Bool[Tensor, " B"] | None, right: Bool[Tensor, " B"] | None
) -> tuple[Bool[Tensor, " B"], Bool[Tensor, " B"]]:
    """Replace absent masks: every clip shows both hands."""
    everywhere = torch.ones(len(body), dtype=torch.bool, device=body.device)
    return everywhere if left is None else left, everywhere if right is None else right
