import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clips import content_of
from numpy.testing import assert_array_equal

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import load_dataset
from slrctl.core.data.readers import read_clips
from slrctl.core.data.readers.parquet import SCHEMA, write_parquet
from slrctl.errors import DataError
from slrctl.settings import DataSettings


def landmarks(num_frames: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(0.5, 0.3, (num_frames, 54, 2)).astype(np.float32)
    values[rng.random((num_frames, 54)) < 0.3] = np.nan
    return values


STRANGE_IDS = ["", "a/b:c,d", 'quote"\n', "[x]", " ü ", "0"]


def assert_same(found, expected) -> None:
    assert [content_of(clip) for clip in found] == [content_of(clip) for clip in expected]


def test_clips_are_read_as_they_were_written_to_the_bit(tmp_path):
    clips = [
        Clip(name, f"gloss {n % 2}", landmarks(3 + n, n), "signer1", None, "train", 29.97, 16 / 9)
        for n, name in enumerate(STRANGE_IDS)
    ]
    clips.append(Clip("last", "gloss 0", landmarks(1), None, "monday"))

    write_parquet(clips, tmp_path / "signs.parquet")
    dataset = load_dataset(tmp_path / "signs.parquet")

    assert dataset.classes == ("gloss 0", "gloss 1")
    assert dataset.notes == ()
    assert_same(dataset, clips)


def test_a_real_set_holds_the_numbers_in_its_file_and_survives_a_round_trip(shared_data, tmp_path):
    path = shared_data / "asl9.parquet"
    rows = pq.read_table(path, columns=["clip_id", "landmarks"]).slice(1000, 3).to_pylist()

    dataset = load_dataset(path)
    write_parquet(dataset, tmp_path / "asl9.parquet")

    for clip, row in zip(dataset[1000:1003], rows, strict=True):
        assert clip.clip_id == row["clip_id"]
        expected = np.array(row["landmarks"], np.float32).reshape(-1, 54, 2)
        assert_array_equal(clip.landmarks, expected)
    assert_same(load_dataset(tmp_path / "asl9.parquet"), dataset)


def test_two_files_of_the_same_clips_are_equal_to_the_byte(tmp_path):
    clips = [Clip("a", "book", landmarks(2))]

    write_parquet(clips, tmp_path / "one.parquet")
    write_parquet(clips, tmp_path / "two.parquet")

    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float32()), pa.list_(pa.float64()), pa.large_list(pa.float32()),
        pa.large_list(pa.float64()), pa.list_(pa.float32(), 216),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("group_rows", [1, 100])
def test_every_kind_of_list_is_read(tmp_path, kind, group_rows):
    clips = [landmarks(2, seed) for seed in range(5)]
    table = pa.table(
        {
            "clip_id": [str(n) for n in range(5)],
            "gloss": ["book"] * 5,
            "n_frames": [2] * 5,
            "landmarks": pa.array([clip.ravel().tolist() for clip in clips], kind),
        }
    )
    pq.write_table(table, tmp_path / "signs.parquet", row_group_size=group_rows)

    dataset = load_dataset(tmp_path / "signs.parquet")

    for clip, written in zip(dataset, clips, strict=True):
        assert_array_equal(clip.landmarks, written)


def write_columns(path, **columns) -> None:
    values = np.full((2, 216), 0.5)
    values[0, :2] = np.nan
    lists = [[None if np.isnan(number) else number for number in row] for row in values.tolist()]
    table = {"clip_id": ["a", "b"], "gloss": ["x", "y"], "n_frames": [2, 2], "landmarks": lists}
    pq.write_table(pa.table(table | columns), path)


def test_null_is_missing_or_unknown_and_unknown_columns_are_named(tmp_path):
    nothing = pa.nulls(2)
    write_columns(
        tmp_path / "signs.parquet",
        signer=nothing,
        session=pa.array([None, "s1"]),
        fps=nothing,
        aspect=nothing,
        note=["p", "q"],
    )

    dataset = load_dataset(tmp_path / "signs.parquet")

    assert_array_equal(np.isnan(dataset[0].landmarks).ravel()[:4], [True, True, False, False])
    assert dataset.notes == ("1 column not read: 'note'",)
    assert [(c.signer, c.session, c.split, c.fps, c.aspect) for c in dataset] == [
        (None, None, None, None, 1.0),
        (None, "s1", None, None, 1.0),
    ]


def test_categories_and_integers_become_text(tmp_path):
    write_columns(
        tmp_path / "signs.parquet",
        clip_id=pa.array([7, 8]),
        gloss=pa.array(["x", "y"]).dictionary_encode(),
        signer=pa.array(["p", None], pa.large_string()),
    )

    dataset = load_dataset(tmp_path / "signs.parquet")

    assert [(c.clip_id, c.gloss, c.signer) for c in dataset] == [("7", "x", "p"), ("8", "y", None)]


def test_landmarks_are_taken_as_they_are(tmp_path):
    """Zeros, repeated frames and coordinates outside the image are data in our own format."""
    clip = np.zeros((5, 54, 2), np.float32)
    clip[:, :, 1] = 3.0
    clip[:, 0] = 0.0
    write_parquet([Clip("a", "book", clip)], tmp_path / "signs.parquet")

    assert_array_equal(load_dataset(tmp_path / "signs.parquet")[0].landmarks, clip)


def many_clips(count: int) -> list[Clip]:
    """More clips than are unpacked at a time."""
    return [Clip(f"clip {n}", f"gloss {n % 3}", landmarks(1 + n % 2, n)) for n in range(count)]


def test_clips_of_many_batches_are_read_in_their_order_and_more_than_once(tmp_path):
    clips = many_clips(600)
    write_parquet(iter(clips), tmp_path / "signs.parquet")

    reading = read_clips(tmp_path / "signs.parquet", DataSettings(), None)

    assert_same(reading.clips, clips)
    assert_same(reading.clips, clips)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({("clip_id", 599): "clip 10"}, "row 600, column 'clip_id': found 'clip 10', which row 11"),
        ({("n_frames", 511): 7}, "row 512, column 'landmarks': found 216 numbers"),
        # The earliest fault is named, whatever its column.
        ({("fps", 500): -1.0, ("gloss", 400): None, ("n_frames", 300): 0}, "row 301, column 'n_fr"),
    ],
)
def test_a_fault_far_down_is_found_in_its_row(tmp_path, changes, message):
    path = tmp_path / "signs.parquet"
    write_parquet(many_clips(600), path)
    columns = pq.read_table(path).to_pydict()
    for (column, row), value in changes.items():
        columns[column][row] = value
    pq.write_table(pa.table(columns, schema=SCHEMA), path)

    with pytest.raises(DataError) as error:
        load_dataset(path)
    dataset = load_dataset(path, DataSettings(skip_bad_clips=True))

    assert message in str(error.value)
    assert len(dataset) == 600 - len(changes)
    assert not {f"clip {row}" for _, row in changes} & {clip.clip_id for clip in dataset}


def test_half_landmarks_are_counted_over_all_blocks_but_not_in_clips_left_out(tmp_path):
    path = tmp_path / "signs.parquet"
    clips = many_clips(600)
    for n in (3, 400, 599):
        clips[n].landmarks[0, 0] = [0.5, np.nan]
    write_parquet(clips, path)
    columns = pq.read_table(path).to_pydict()
    columns["n_frames"][400] = 0
    pq.write_table(pa.table(columns, schema=SCHEMA), path)

    dataset = load_dataset(path, DataSettings(skip_bad_clips=True))

    assert "2 landmarks with only one of x and y: taken as missing" in dataset.notes
    assert np.isnan(dataset[3].landmarks[0, 0]).all()
