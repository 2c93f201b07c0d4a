"""The settings: sections of frozen values, validated once after all layers are merged.

A section goes whole to what it describes: `SiFormer(settings.model, num_classes=...)`. Facts of
the data (classes, signers) are not settings; they come from the data set.
"""

import math
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# Larger numbers are typing errors, and would fill the memory.
Positive = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Layers = Annotated[int, Field(strict=True, ge=1, le=1_000)]
Share = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _has_no_nul(cls, value: Any) -> Any:
        if any("\0" in str(text) for text in (value if isinstance(value, list) else [value])):
            raise ValueError("holds a NUL, which no name or path has")
        return value


class DataSettings(Section):
    train: Path | None = None
    """Training clips; the demo set if absent."""
    val: Path | None = None
    """Validation clips; if absent, the `val` rows of the training file, else a share split off."""
    test: Path | None = None
    """Test clips, used once at the end; if absent, the `test` rows of the training file."""
    train_signers: tuple[str, ...] | None = None
    """Signers to train on, such as A,B, whatever the split column says; the others test, unless
    named."""
    val_signers: tuple[str, ...] | None = None
    """Signers to validate on; without any, a share of the training clips is split off."""
    test_signers: tuple[str, ...] | None = None
    """Signers to test on; the others train, unless `train_signers` names them."""
    val_share: Annotated[float, Field(gt=0, le=0.5)] = 0.15
    """Share of the training clips split off for validation where none are given."""
    frame_size: tuple[Positive, Positive] | None = None
    """Size of the image, such as 640x480, for pixel coordinates in files that do not say."""
    val_mirrored: bool = False
    """Validate on every clip and its mirrored copy, so that mirrored signing counts."""
    gloss_names: Path | None = None
    """JSON or CSV file that names the glosses of integer labels."""
    skip_bad_clips: bool = False
    """Leave out clips that cannot be read, and report how many and why, instead of stopping."""
    cache: bool = True
    """Keep clips, once read and cleaned, for the next start."""
    cache_dir: Path | None = None
    """Folder of the cache; the user's cache folder if absent."""
    cache_gigabytes: NonNegative = 20.0
    """Size limit of the cache; the clips unused for longest are removed first."""

    @field_validator("frame_size", mode="before")
    @classmethod
    def _read_size(cls, size: Any) -> Any:
        if not isinstance(size, str):
            return size
        width, _, height = size.lower().partition("x")
        if not (width.strip().isdecimal() and height.strip().isdecimal()):
            raise ValueError("expected WIDTHxHEIGHT in pixels, such as 640x480")
        return int(width), int(height)

    @field_validator("train_signers", "val_signers", "test_signers", mode="before")
    @classmethod
    def _read_names(cls, names: Any) -> Any:
        if not isinstance(names, str):
            return names
        return tuple(name.strip() for name in names.split(",") if name.strip())


class PrepareSettings(Section):
    hand_box: Annotated[float, Field(ge=1)] = 1.2
    """Side of a hand's square box over the longer side of its landmarks' bounding box."""
    edge_hands: Literal["keep", "drop"] = "keep"
    """drop: a hand at the edge of the image counts as missing, because trackers guess there."""
    dominant_hand: Literal["as_signed", "right"] = "as_signed"
    """right: clips whose left hand does more are mirrored, in training and evaluation alike."""
    letterbox: bool = True
    """Give x and y one scale where the image is not square."""
    trim_rest: bool = True
    """Cut off frames before the first and after the last that shows a hand."""
    fill_gaps: Annotated[int, Field(strict=True, ge=0, le=1000)] = 5
    """Longest gap, in frames, in which an undetected landmark is interpolated; 0: none."""
    num_frames: Annotated[int, Field(strict=True, ge=0, le=10_000)] = 32
    """Frames that every clip is resampled to; 0: clips keep theirs, up to `model.max_frames`."""
    rectify: bool = False
    """Clamp finger joints to anatomical ranges (kinematic rectification)."""
    rectify_alpha: Probability = 0.4
    """Share of the excess by which a joint out of its range is rotated back."""


class AugmentSettings(Section):
    enabled: bool = True
    """Augment training clips; false turns off everything in this section."""
    geometric: Probability = 0.0
    """Probability that a clip gets one of rotation, shear, squeeze and arm rotation."""
    rotation_degrees: NonNegative = 13.0
    """Largest rotation of the whole clip about the image centre, either way."""
    shear: Annotated[float, Field(ge=0, le=0.25)] = 0.1
    """Largest share of the image by which the corners of one side move inwards, in perspective."""
    squeeze: Annotated[float, Field(ge=0, lt=0.5)] = 0.15
    """Largest share of the image's width cut off at a side."""
    arm_degrees: NonNegative = 4.0
    """Largest rotation of an arm joint, either way; the hand follows its wrist."""
    arm_probability: Probability = 0.3
    """Probability that a given arm joint is rotated, once arm rotation was drawn."""
    mirror: Probability = 0.5
    """Probability that a clip is mirrored, left and right hand swapped."""
    affine: Annotated[float, Field(ge=0, le=4)] = 1.0
    """Strength of random rotation, stretching and slant; 1 is up to 13 degrees, 15 % and 0.1."""
    proportions: Annotated[float, Field(ge=0, le=4)] = 1.0
    """Strength of random scale and shift of hands and arms beside the shoulders; 1 is up to 15 %
    and a tenth of their width."""
    hand_size: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    """Largest share by which a hand is scaled beside the body."""
    time_warp: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Variation of the speed within a clip: up to exp(2 x this) either way. Needs
    `prepare.num_frames`, as `time_cut` does."""
    time_cut: Annotated[float, Field(ge=0, le=0.4)] = 0.1
    """Largest share of a clip cut off at its start and at its end."""
    speed: Annotated[float, Field(ge=1, le=4)] = 1.0
    """Clips are resampled to between 1/speed and speed times their length; 1 is off."""
    frame_dropout: Share = 0.1
    """Probability that a frame loses all its landmarks."""
    joint_dropout: Share = 0.0
    """Probability that a landmark is lost in a frame."""
    hand_dropout: Share = 0.05
    """Probability that one hand is lost in the whole clip."""
    jitter: NonNegative = 0.004
    """Standard deviation of the noise on landmarks before normalisation, in shoulder distances."""
    noise: NonNegative = 0.0
    """Standard deviation of the noise on present landmarks, in units of their box."""


class ModelSettings(Section):
    name: Literal["streamformer", "siformer", "spoter", "gru", "conv"] = "streamformer"
    """streamformer: an encoder per stream; siformer: the published one; spoter, gru, conv: one
    network over all features, to compare."""
    embed_dim: Positive = 96
    """Features of a stream in streamformer, a multiple of 2 x `num_heads`."""
    joint_dim: Positive = 192
    """Features of the joined streams in streamformer; of gru and conv."""
    num_heads: Positive = 4
    """Attention heads of streamformer and conv."""
    num_stream_layers: Layers = 1
    """Recurrent layers of a stream's encoder in streamformer."""
    num_joint_layers: Annotated[int, Field(strict=True, ge=0, le=1_000)] = 1
    """Recurrent layers of the joined streams in streamformer."""
    kernel_size: Annotated[int, Field(strict=True, ge=1, le=99)] = 5
    """Frames under a convolution of conv, an odd number."""
    pooling_dropout: Share = 0.3
    """Dropout before the classifier of streamformer, gru and conv."""
    attention: Literal["full", "prob", "first_frame"] = "full"
    """Self-attention of siformer and spoter; first_frame does what the published code does."""
    cross_attention: bool = True
    """Fuse the streams by cross-modal attention after their encoders."""
    num_encoder_layers: Layers = 3
    num_decoder_layers: Layers = 2
    hand_heads: Positive = 3
    body_heads: Positive = 2
    fusion_heads: Positive = 3
    decoder_heads: Positive = 9
    ffn_dim: Positive = 2048
    """Width of the feed-forward layers."""
    dropout: Share = 0.2
    max_frames: Positive = 204
    """Longest clip the model takes; longer ones are resampled evenly to this length."""

    @model_validator(mode="after")
    def _heads_divide_their_width(self) -> Self:
        if self.embed_dim % (2 * self.num_heads) or self.joint_dim % (2 * self.num_heads):
            raise ValueError(
                f"model.embed_dim ({self.embed_dim}) and model.joint_dim ({self.joint_dim}) must "
                f"be multiples of 2 * model.num_heads ({2 * self.num_heads})"
            )
        if self.kernel_size % 2 == 0:
            raise ValueError(f"model.kernel_size ({self.kernel_size}) must be odd")
        for key, widths in _WIDTHS_OF_HEADS.items():
            heads, common = getattr(self, key), math.gcd(*widths)
            for width in widths:
                if width % heads:
                    possible = [str(n) for n in range(1, common + 1) if common % n == 0]
                    raise ValueError(
                        f"model.{key} is {heads}, which must divide the stream's width {width}; "
                        f"take one of {', '.join(possible)}"
                    )
        return self


MODELS_OF_PLACED = "streamformer", "gru", "conv"
"""Models that read the landmarks beside the body too."""
MODELS_WITH_STREAMS = "streamformer", "siformer"
"""Models that encode the streams apart, so that CMCL can compare them."""

# Widths of the flattened landmarks of a hand, of the body and of all three streams.
_WIDTHS_OF_HEADS = {
    "hand_heads": (42,),
    "body_heads": (24,),
    "fusion_heads": (42, 24),
    "decoder_heads": (108,),
}


class CMCLSettings(Section):
    preset: Literal["off", "conservative", "balanced", "aggressive", "adaptive"] = "off"
    """off, conservative, balanced, aggressive or adaptive: both lambdas and their schedule; single
    values given beside it win."""
    lambda_consistency: NonNegative = 0.0
    """Weight of the consistency term."""
    lambda_alignment: NonNegative = 0.0
    """Weight of the alignment term."""
    temperature: Annotated[float, Field(ge=1e-3)] = 1.0
    """Softens both maps before they are compared, applied once."""
    divergence: Literal["kl", "symmetric", "js"] = "kl"
    """Comparison of two rows, in the kl form and by temporal; kl is the published formula."""
    consistency: Literal["kl", "cycle"] = "kl"
    """Form of the consistency term; cycle cannot be satisfied by attending to nothing."""
    alignment: Literal["cosine", "contrastive"] = "cosine"
    """Form of the alignment term; contrastive cannot be satisfied by constant embeddings."""
    contrastive_temperature: Annotated[float, Field(ge=1e-3)] = 0.1
    """Divisor of the cosines in the contrastive form."""
    temporal: bool = False
    """Add to consistency that attention moves on by one frame from frame to frame."""
    multi_scale: bool = False
    """Align the streams after every encoder layer as well, not only after the fusion."""
    projection_dim: Positive = 64
    """Common width the three streams are projected to for alignment."""
    adaptive: bool = False
    """Let both lambdas follow a warm-up and a decay over the epochs."""
    warmup_epochs: Positive | None = None
    """Warm-up of the adaptive schedule; if absent 10, in runs under 100 epochs a tenth of them."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Factor per epoch after the warm-up of the adaptive schedule."""

    @property
    def is_on(self) -> bool:
        return any(getattr(self, f"lambda_{name}") > 0 for name in CMCL_TERMS)


CMCL_TERMS = tuple(
    field.removeprefix("lambda_") for field in CMCLSettings.model_fields if "lambda_" in field
)
"""Terms of the loss beside the cross-entropy: those with a lambda."""


class TrainSettings(Section):
    epochs: Positive = 60
    """Passes over the training clips."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after so many epochs in a row without an improvement: more validation clips right than
    ever, or as many at a lower cross-entropy. 0: train all epochs."""
    batch_size: Positive = 32
    """Clips in a step, of all processes together."""
    accumulate: Positive = 1
    """Shares of a step that each process computes one after the other, to save memory."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Highest learning rate of the schedule."""
    weight_decay: NonNegative = 0.05
    schedule: Literal["constant", "multistep", "cosine"] = "cosine"
    """Learning rate over the epochs; multistep: times 0.1 at 60 % and at 80 %."""
    warmup_epochs: NonNegative | None = None
    """Epochs over which the learning rate rises from 0; a fifteenth of all if absent."""
    clip_gradient: NonNegative = 1.0
    """Largest norm of the gradient; 0: no limit."""
    label_smoothing: Share = 0.1
    diagnostics_every: Positive = 50
    """Steps between two measurements of each loss term's gradient norm."""
    diagnostics: bool = False
    """Show the measurements of CMCL after every epoch."""
    save_seconds: NonNegative = 60.0
    """Seconds between two saved states within an epoch; the end of an epoch is always saved."""
    tracker: Literal["none", "tensorboard", "wandb", "mlflow"] = "none"
    """Tracker that gets every epoch's metrics, offline; needs the extra of the same name."""
    device: str = "auto"
    """auto, cpu, cuda or mps; auto takes an accelerator where there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the training step; auto takes bf16 on a GPU with instructions for it, else
    fp32. A run keeps its precision when it is resumed. Evaluation is always fp32."""


class EvaluateSettings(Section):
    batch_size: Positive = 64
    resamples: Annotated[int, Field(ge=100)] = 2000
    """Bootstrap resamples behind each interval."""


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one nested tree over another, section by section; neither is changed."""
    merged = dict(below)
    for key, value in above.items():
        lower = merged.get(key)
        if isinstance(value, Mapping) and isinstance(lower, Mapping):
            value = merge(lower, value)
        merged[key] = value
    return merged


class Settings(Section):
    seed: Annotated[int, Field(strict=True, ge=0)] = 379
    """Everything random in a run follows from this number."""
    recipe: Literal["slrctl", "siformer"] = "slrctl"
    """siformer: the published model, preparation, augmentation, optimizer and schedule."""
    data: DataSettings = DataSettings()
    prepare: PrepareSettings = PrepareSettings()
    augment: AugmentSettings = AugmentSettings()
    model: ModelSettings = ModelSettings()
    cmcl: CMCLSettings = CMCLSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()

    @classmethod
    def layered(cls, *layers: Mapping[str, Any]) -> Self:
        """Lay each layer over the ones before it; a layer names only what it changes."""
        return cls.model_validate(reduce(merge, layers, {}))

    @model_validator(mode="after")
    def _frames_fit_the_model(self) -> Self:
        if self.prepare.num_frames > self.model.max_frames:
            raise ValueError(
                f"prepare.num_frames ({self.prepare.num_frames}) must not exceed model.max_frames "
                f"({self.model.max_frames})"
            )
        return self

    @model_validator(mode="after")
    def _cmcl_has_what_it_needs(self) -> Self:
        cmcl = self.cmcl
        if cmcl.adaptive and not cmcl.is_on:
            raise ValueError(
                "cmcl.adaptive is true but both lambdas are 0, so there is nothing to schedule; "
                "pass --cmcl adaptive, or a lambda above 0"
            )
        if cmcl.is_on and self.model.name not in MODELS_WITH_STREAMS:
            raise ValueError(
                f"cmcl compares three streams, but model.name {self.model.name!r} has one; set "
                "model.name to 'streamformer' or 'siformer', or cmcl.preset to 'off'"
            )
        if cmcl.is_on and not self.model.cross_attention:
            raise ValueError(
                "cmcl compares cross-attention maps, but model.cross_attention is false; "
                "pass --cross-attention, or --cmcl off"
            )
        return self
