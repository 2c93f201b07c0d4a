from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from clips import signing_clip, whole_batches
from torch.testing import assert_close

from slrctl.core import skeleton
from slrctl.core.clip import Clip, ClipBatch
from slrctl.core.data.batches import (
    WINDOW,
    clip_batch,
    evaluation_batches,
    num_batches,
    num_micro_batches,
    training_micro_batches,
    training_order,
)
from slrctl.core.data.dataset import SignDataset, canonical_dataset
from slrctl.core.data.prepare import (
    even_positions,
    fill_gaps,
    interpolate_frames,
    place,
    prepare_clip,
    resample_frames,
    trim_rest,
)
from slrctl.layers import RECIPES
from slrctl.settings import PrepareSettings, Settings

CLASSES = ("a", "b", "c")


def random_dataset(count: int, *, shortest: int = 20, longest: int = 60) -> SignDataset:
    rng = np.random.default_rng(0)
    clips = []
    for number in range(count):
        landmarks = rng.random((rng.integers(shortest, longest + 1), 54, 2), dtype=np.float32)
        landmarks[:, 12:33][rng.random(len(landmarks)) < 0.5] = np.nan
        clips.append(Clip(f"clip {number}", CLASSES[number % 3], landmarks, aspect=1.3))
    return SignDataset(tuple(clips), CLASSES, "random")


def settings_with(
    batch_size: int = 4,
    max_frames: int = 60,
    seed: int = 1,
    augment: dict[str, float] | None = None,
) -> Settings:
    """Return settings of clips that keep their frames, with the published augmentation."""
    return Settings.layered(
        RECIPES["siformer"],
        {
            "seed": seed,
            "train": {"batch_size": batch_size},
            "model": {"max_frames": max_frames},
            "augment": augment or {},
        },
    )


Rows = dict[str, tuple[torch.Tensor, ...]]


def rows_by_clip(batches: Iterable[ClipBatch]) -> Rows:
    """Each clip's target and real frames."""
    rows = {}
    for batch in batches:
        assert batch.target is not None
        parts = [batch.left_hand, batch.right_hand, batch.body]
        presence = [batch.left_is_present, batch.right_is_present]
        for row, clip_id in enumerate(batch.clip_ids):
            length = int(batch.is_valid[row].sum())
            assert clip_id not in rows
            rows[clip_id] = (batch.target[row], *(x[row, :length] for x in [*parts, *presence]))
    return rows


def differing(rows: Rows, others: Rows) -> list[str]:
    """The clips of which not every bit is the same."""
    assert rows.keys() == others.keys()
    return [
        name
        for name in rows
        if not all(torch.equal(a, b) for a, b in zip(rows[name], others[name], strict=True))
    ]


def ids(batches) -> list[str]:
    return [clip_id for batch in batches for clip_id in batch.clip_ids]


def assert_same_bits(batches: list[ClipBatch], expected: list[ClipBatch]) -> None:
    for batch, other in zip(batches, expected, strict=True):
        assert batch.clip_ids == other.clip_ids
        assert_close(tensors_of(batch), tensors_of(other), rtol=0, atol=0)


def tensors_of(batch: ClipBatch) -> dict[str, torch.Tensor]:
    return {name: value for name, value in vars(batch).items() if torch.is_tensor(value)}


@pytest.mark.parametrize(("count", "batch_size"), [(23, 4), (24, 4), (3, 8), (1, 1), (190, 2)])
def test_an_epoch_shows_every_clip_once(count, batch_size):
    dataset = random_dataset(count, shortest=2, longest=5)

    batches = list(whole_batches(dataset, settings_with(batch_size), 0))

    assert sorted(ids(batches)) == sorted(clip.clip_id for clip in dataset)
    assert len(batches) == num_batches(count, batch_size)
    sizes = sorted(len(batch) for batch in batches)
    assert sizes[1:] == [batch_size] * (len(batches) - 1)


def test_the_order_follows_from_seed_and_epoch_and_not_from_the_file():
    dataset = random_dataset(60, shortest=2, longest=9)
    reversed_dataset = dataset.with_clips(reversed(dataset.clips))

    def batches(seed: int, epoch: int, dataset: SignDataset = dataset) -> list[ClipBatch]:
        return list(whole_batches(dataset, settings_with(seed=seed), epoch))

    assert_same_bits(batches(1, 0), batches(1, 0))
    assert_same_bits(batches(1, 3), batches(1, 3, reversed_dataset))
    assert ids(batches(1, 0)) != ids(batches(1, 1))
    assert ids(batches(1, 0)) != ids(batches(2, 0))


def test_batches_do_not_run_from_short_to_long_clips():
    dataset = random_dataset(800, shortest=2, longest=9)

    batches = training_order(dataset, settings_with(batch_size=8), 0)

    lengths = np.array([np.mean(dataset.lengths[rows]) for rows in batches])
    assert len(lengths) > 4 * WINDOW
    # Windows sorted by length, one after another, would rise at 95 % of the steps.
    assert np.mean(np.diff(lengths) >= 0) < 0.75


def test_a_batch_has_other_clips_in_another_epoch():
    dataset = random_dataset(400, shortest=5, longest=5)

    first, second = (
        {frozenset(rows.tolist()) for rows in training_order(dataset, settings_with(), epoch)}
        for epoch in (0, 1)
    )

    assert not first & second


def test_a_clip_looks_the_same_whatever_the_batch_size_and_different_in_another_epoch():
    dataset = random_dataset(30)
    varied = {"geometric": 1.0, "speed": 1.2, "joint_dropout": 0.1, "noise": 0.01}

    small, large, later = (
        rows_by_clip(whole_batches(dataset, settings_with(size, augment=varied), epoch))
        for size, epoch in ((3, 5), (16, 5), (16, 6))
    )

    assert differing(small, large) == []
    assert differing(large, later) == list(large)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("size", "num_ranks", "accumulate"), [(4, 2, 1), (4, 3, 2), (2, 4, 1)])
def test_the_micro_batches_of_all_processes_show_every_clip_once_and_as_in_the_whole_batch(
    size, num_ranks, accumulate, device
):
    dataset = random_dataset(9)
    settings = Settings.layered(
        settings_with(size).model_dump(), {"train": {"accumulate": accumulate}}
    )

    whole = list(whole_batches(dataset, settings, 3, start=1))
    by_rank = [
        list(
            training_micro_batches(
                dataset,
                settings,
                3,
                device=torch.device(device),
                start=1,
                rank=rank,
                num_ranks=num_ranks,
            )
        )
        for rank in range(num_ranks)
    ]

    assert {len(batches) for batches in by_rank} == {len(whole)}
    for batch, *of_ranks in zip(whole, *by_rank, strict=True):
        micro_batches = [one for of_rank in of_ranks for one in of_rank]
        shown = rows_by_clip([one.clips for one in micro_batches])
        assert sorted(shown) == sorted(batch.clip_ids)
        for clip_id, rows in rows_by_clip([batch]).items():
            assert all(torch.equal(x, y) for x, y in zip(rows, shown[clip_id], strict=True))
        indices = [one.index % num_ranks for of_rank in of_ranks for one in of_rank]
        assert indices == [rank for rank, own in enumerate(of_ranks) for _ in own]


@pytest.mark.parametrize(
    ("num_frames", "num_shares", "device", "count"),
    [
        (306, 1, "cpu", 1),
        (307, 1, "cpu", 2),
        (4 * 306, 1, "cpu", 2),
        (4 * 306, 2, "cpu", 4),
        (10**6, 1, "meta", 1),
        (10**6, 6, "meta", 6),
    ],
)
def test_a_cpu_cuts_every_share_by_the_root_of_its_frames_and_an_accelerator_not_at_all(
    num_frames, num_shares, device, count
):
    assert num_micro_batches(num_frames, num_shares, torch.device(device)) == count


def test_processes_that_take_turns_evaluate_every_batch_once():
    dataset, settings = random_dataset(10), settings_with()

    turns = [
        list(evaluation_batches(dataset, settings, batch_size=3, start=rank, step=3))
        for rank in range(3)
    ]

    whole = [batch.clip_ids for batch in evaluation_batches(dataset, settings, batch_size=3)]
    assert [batch.clip_ids for batches in turns for batch in batches] == [
        whole[number] for number in (0, 3, 1, 2)
    ]


@pytest.mark.parametrize("start", [0, 1, 5, 6])
def test_an_interrupted_epoch_goes_on_with_the_batches_that_were_left(start):
    dataset, settings = random_dataset(23), settings_with(augment={"speed": 1.3})

    resumed = list(whole_batches(dataset, settings, 2, start=start))

    assert_same_bits(resumed, list(whole_batches(dataset, settings, 2))[start:])


def test_without_augmentation_training_and_evaluation_show_the_same():
    dataset, settings = (
        random_dataset(25, longest=80),
        settings_with(augment={"enabled": False, "noise": 0.5}),
    )

    trained = rows_by_clip(whole_batches(dataset, settings, 0))
    evaluated = rows_by_clip(evaluation_batches(dataset, settings, batch_size=7))

    assert differing(trained, evaluated) == []


def test_noise_alone_moves_what_is_present_by_its_sigma():
    dataset = random_dataset(40)

    clean, noisy = (
        rows_by_clip(
            list(whole_batches(dataset, settings_with(augment={"geometric": 0, "noise": sigma}), 0))
        )
        for sigma in (0.0, 0.01)
    )

    moved = torch.cat([(noisy[name][3] - clean[name][3]).flatten() for name in clean])
    assert moved.std().item() == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("speed", [1.0, 2.0])
def test_no_batch_is_longer_than_the_model_takes(speed):
    dataset = random_dataset(12, shortest=30, longest=90)

    batches = list(
        whole_batches(dataset, settings_with(max_frames=40, augment={"speed": speed}), 0)
    )

    assert max(batch.is_valid.shape[1] for batch in batches) == 40


def test_evaluation_shows_every_clip_prepared_and_once():
    dataset, settings = random_dataset(150, longest=80), settings_with(max_frames=50)

    rows = rows_by_clip(evaluation_batches(dataset, settings, batch_size=16))

    assert sorted(rows) == sorted(clip.clip_id for clip in dataset)
    alone = rows_by_clip(evaluation_batches(dataset, settings, batch_size=1))
    assert differing(rows, alone) == []
    for clip in dataset.clips[::10]:
        landmarks = resample_frames(clip.landmarks, min(clip.num_frames, 50))
        body = prepare_clip(landmarks, settings.prepare)[:, skeleton.BODY]
        target, _, _, shown, *_ = rows[clip.clip_id]
        assert_close(shown, torch.from_numpy(np.nan_to_num(body)).flatten(1), rtol=0, atol=0)
        assert CLASSES[target] == clip.gloss


def test_rectified_clips_look_the_same_in_training_evaluation_and_alone():
    dataset = random_dataset(20, longest=80)
    settings = Settings.layered(
        settings_with(augment={"enabled": False}).model_dump(), {"prepare": {"rectify": True}}
    )

    trained = rows_by_clip(
        list(whole_batches(canonical_dataset(dataset, settings.prepare), settings, 0))
    )
    evaluated = rows_by_clip(evaluation_batches(dataset, settings, batch_size=7))

    for clip in dataset:
        picked = resample_frames(clip.landmarks, min(clip.num_frames, 60))
        alone = prepare_clip(picked, settings.prepare, aspect=clip.aspect)
        hand = torch.from_numpy(np.nan_to_num(alone[:, skeleton.RIGHT_HAND])).flatten(1)
        assert torch.equal(trained[clip.clip_id][2], hand)
        assert torch.equal(evaluated[clip.clip_id][2], hand)
        plain = prepare_clip(picked, PrepareSettings())[:, skeleton.RIGHT_HAND]
        assert not torch.equal(hand, torch.from_numpy(np.nan_to_num(plain)).flatten(1))


def test_clips_in_the_form_of_other_settings_are_refused():
    rectified = canonical_dataset(random_dataset(2), PrepareSettings(rectify=True))

    with pytest.raises(ValueError, match="other `prepare` settings"):
        next(evaluation_batches(rectified, settings_with()))


def test_preparing_leaves_the_data_set_as_it_was():
    dataset = random_dataset(5)
    before = dataset.fingerprint()

    list(evaluation_batches(dataset, settings_with()))
    list(whole_batches(dataset, settings_with(augment={"mirror": 1.0, "speed": 1.5}), 0))

    assert dataset.fingerprint() == before


def test_buckets_keep_padding_low():
    dataset = random_dataset(2000)
    settings = settings_with(batch_size=24)

    batches = training_order(dataset, settings, 0)

    slots = sum(dataset.lengths[rows].max() * len(rows) for rows in batches)
    frames = sum(clip.num_frames for clip in dataset)
    # A random order wastes a third of its slots.
    assert 1 - frames / slots < 0.05


# --- the default recipe ---------------------------------------------------------------------------


def signing_dataset(count: int = 6) -> SignDataset:
    clips = (signing_clip(seed, 9 + 5 * seed, CLASSES[seed % 3]) for seed in range(count))
    return SignDataset(tuple(clips), CLASSES, "signing")


def test_evaluation_trims_fills_and_resamples_every_clip_to_one_number_of_frames():
    dataset, settings = signing_dataset(), Settings.layered({"prepare": {"num_frames": 10}})
    for clip in dataset:
        clip.landmarks[:3, skeleton.NUM_BODY :] = np.nan

    (batch,) = evaluation_batches(dataset, settings)

    assert batch.is_valid.tolist() == [[True] * 10] * 6
    assert batch.placed is not None
    for row, clip_id in enumerate(batch.clip_ids):
        clip = next(clip for clip in dataset if clip.clip_id == clip_id)
        filled = fill_gaps(trim_rest(clip).landmarks, 5)
        seen = interpolate_frames(
            torch.from_numpy(filled)[None], torch.tensor([len(filled)]), even_positions(1, 10)
        )
        prepared = prepare_clip(seen[0].numpy(), settings.prepare)
        flat = torch.from_numpy(np.nan_to_num(prepared)).flatten(1)
        streams = batch.body[row], batch.left_hand[row], batch.right_hand[row]
        assert torch.equal(torch.cat(streams, -1), flat)
        assert torch.equal(batch.placed[row], place(seen)[0].nan_to_num(0))


@pytest.mark.parametrize("num_frames", [0, 10])
def test_evaluation_gives_each_clip_the_same_bits_in_any_company(num_frames):
    dataset, settings = signing_dataset(), Settings.layered({"prepare": {"num_frames": num_frames}})

    together = by_clip(evaluation_batches(dataset, settings))
    alone = by_clip(evaluation_batches(dataset, settings, batch_size=1))

    assert_close(together, alone, rtol=0, atol=0)


@pytest.mark.parametrize("num_frames", [0, 10])
def test_training_augments_each_clip_to_the_same_bits_in_any_company(num_frames):
    dataset = signing_dataset()
    settings = Settings.layered({"prepare": {"num_frames": num_frames}})

    def varied(groups: list[list[Clip]], epoch: int) -> dict:
        return by_clip(clip_batch(group, CLASSES, settings, epoch=epoch) for group in groups)

    first, *others = dataset.clips
    together = varied([[*dataset.clips]], 3)

    assert_close(varied([[first], others[::-1]], 3), together, rtol=0, atol=0)
    later = varied([[*dataset.clips]], 4)
    assert all(later[name]["body"].shape != one["body"].shape
               or not torch.equal(later[name]["placed"], one["placed"])
               for name, one in together.items())  # fmt: skip


def by_clip(batches: Iterable[ClipBatch]) -> dict[str, dict[str, torch.Tensor]]:
    """Everything that batches hold of the real frames of each clip."""
    return {
        clip_id: {
            name: tensor[row, : int(batch.is_valid[row].sum())] if tensor.ndim > 1 else tensor[row]
            for name, tensor in tensors_of(batch).items()
        }
        for batch in batches
        for row, clip_id in enumerate(batch.clip_ids)
    }


def test_placed_landmarks_are_0_where_missing_and_on_padding():
    settings = Settings.layered({"prepare": {"num_frames": 0, "fill_gaps": 0, "trim_rest": False}})
    short, long = signing_clip(1, 5), signing_clip(2, 9)

    batch = clip_batch([short, long], None, settings)

    assert batch.target is None
    assert batch.placed is not None
    assert not batch.placed[0, 5:].any()
    for clip, found in zip((short, long), batch.placed, strict=True):
        alone = place(torch.from_numpy(clip.landmarks)[None])[0]
        assert_close(found[: clip.num_frames], alone.nan_to_num(0), rtol=0, atol=0)
        assert alone.isnan().any()


@pytest.mark.parametrize("num_frames", [0, 10])
def test_half_a_landmark_is_a_missing_one(num_frames):
    settings = Settings.layered({"prepare": {"num_frames": num_frames}})
    whole, half = signing_clip(1, 20), signing_clip(1, 20)
    whole.landmarks[3:12, [0, 15, 40]] = np.nan
    half.landmarks[3:12, [0, 15, 40], 1] = np.nan

    expected, found = (tensors_of(clip_batch([clip], None, settings)) for clip in (whole, half))

    assert_close(found, expected, rtol=0, atol=0)


def augmented_by(**changes: float) -> Settings:
    """Return the default settings with the named kinds of augmentation alone."""
    off = {"mirror": 0, "affine": 0, "proportions": 0, "hand_size": 0, "jitter": 0}
    off |= {"time_warp": 0, "time_cut": 0, "frame_dropout": 0, "hand_dropout": 0}
    return Settings.layered({"augment": {**off, **changes}})


def test_proportions_vary_what_is_placed_and_leave_what_lies_in_boxes():
    settings = augmented_by(proportions=1)
    clips = signing_dataset().clips

    plain = clip_batch(clips, CLASSES, settings)
    varied = clip_batch(clips, CLASSES, settings, epoch=0)

    assert torch.equal(varied.body, plain.body)
    assert torch.equal(varied.left_hand, plain.left_hand)
    assert plain.placed is not None
    assert varied.placed is not None
    assert (varied.placed - plain.placed).flatten(1).abs().amax(1).min() > 1e-3


def test_jitter_moves_every_landmark_by_its_share_of_the_clips_shoulders():
    clips = [replace(clip, landmarks=size * clip.landmarks)
             for clip, size in zip(signing_dataset(), (1, 1, 1, 4, 4, 4), strict=True)]  # fmt: skip
    settings = augmented_by(jitter=0.02)

    plain = clip_batch(clips, CLASSES, settings)
    moved = clip_batch(clips, CLASSES, settings, epoch=0)

    assert plain.placed is not None
    assert moved.placed is not None
    for before, after in zip(plain.placed, moved.placed, strict=True):
        of_hands = (after - before)[:, skeleton.NUM_BODY :]
        # The medians that all landmarks are measured by move as well, by less.
        assert of_hands[before[:, skeleton.NUM_BODY :] != 0].std().item() == pytest.approx(
            0.02, abs=0.006
        )


def test_no_clip_of_training_is_warped_where_clips_keep_their_frames():
    settings = Settings.layered(
        {"prepare": {"num_frames": 0}, "augment": {"frame_dropout": 0, "hand_dropout": 0}}
    )
    clips = [signing_clip(seed, 20) for seed in range(4)]

    plain = clip_batch(clips, None, settings)
    varied = clip_batch(clips, None, settings, epoch=0)

    assert torch.equal(varied.is_valid, plain.is_valid)


@pytest.mark.parametrize(
    ("name", "reads_placed"),
    [
        ("streamformer", True),
        ("gru", True),
        ("conv", True),
        ("siformer", False),
        ("spoter", False),
    ],
)
def test_landmarks_are_placed_for_the_models_that_read_them(name, reads_placed):
    settings = Settings.layered({"model": {"name": name}})

    batch = clip_batch(random_dataset(2)[:], None, settings)

    assert (batch.placed is not None) == reads_placed
