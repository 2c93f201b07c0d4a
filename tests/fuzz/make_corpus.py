"""Write small CSV files in the variants of the format, from which mutation starts.

Usage: python tests/fuzz/make_corpus.py
"""

import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus" / "csv"
sys.path.append(str(Path(__file__).parents[1]))

from spoter_files import person, write_csv  # noqa: E402


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    padded = person(3)
    padded[2] = 0
    write_csv(FOLDER / "two_clips.csv", [person(2), person(1, 1)])
    write_csv(FOLDER / "numbered_padded.csv", [padded, person(2, 2)], [1, 2], numbered=True)
    write_csv(FOLDER / "no_neck.csv", [person(1)], ["7"], with_neck=False)
    size = {"video_fps": [25], "video_size_width": [640], "video_size_height": [480]}
    write_csv(FOLDER / "pixels.csv", [person(1) * [640, 480]], extra=size)
    write_csv(
        FOLDER / "odd_cells.csv",
        [person(1), person(1, 3), person(1, 4)],
        changes={(0, "nose_X"): "[nan]", (1, "neck_Y"): "[1e999]", (2, "leftEar_X"): ""},
    )


if __name__ == "__main__":
    main()
