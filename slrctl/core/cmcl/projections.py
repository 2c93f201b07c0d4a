"""Linear maps from the streams to a width they share, which alignment compares them in."""

from jaxtyping import Float
from torch import Tensor, nn

from slrctl.core.clip import ClipBatch
from slrctl.core.cmcl.alignment import mean_over_frames
from slrctl.core.model.fusion import Streams
from slrctl.core.skeleton import BODY_WIDTH, HAND_WIDTH


def stream_means(features: Streams, batch: ClipBatch) -> Streams:
    """Average each stream over the frames where its part is present: three embeddings `B D`."""
    return Streams(
        mean_over_frames(features.left_hand, batch.left_is_present),
        mean_over_frames(features.right_hand, batch.right_is_present),
        mean_over_frames(features.body, batch.is_valid),
    )


class StreamProjections(nn.Module):
    """A linear map per stream, for alignment only."""

    def __init__(self, projection_dim: int) -> None:
        super().__init__()
        self.left_hand = nn.Linear(HAND_WIDTH, projection_dim)
        self.right_hand = nn.Linear(HAND_WIDTH, projection_dim)
        self.body = nn.Linear(BODY_WIDTH, projection_dim)

    def forward(
        self,
        left_hand: Float[Tensor, "B L"],
        right_hand: Float[Tensor, "B R"],
        body: Float[Tensor, "B W"],
    ) -> Streams:
        """Project three embeddings to the common width."""
        return Streams(self.left_hand(left_hand), self.right_hand(right_hand), self.body(body))
