"""Glosses as labels in figures: on one line, not too long, and only where a font can draw them."""

from collections.abc import Sequence

from matplotlib import font_manager

LONGEST_NAME = 32

# For scripts that matplotlib's own font lacks; a character is taken from the first that has it.
_OTHER_FONTS = (
    "Noto Sans CJK KR",
    "Noto Sans KR",
    "NanumGothic",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "Arial Unicode MS",
)


def available_families() -> list[str]:
    """The font that comes with matplotlib, then those installed for other scripts."""
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in _OTHER_FONTS if name in installed)]


def gloss_labels(classes: Sequence[str], families: Sequence[str]) -> list[str]:
    """A label for each class.

    Where no family has a character of a gloss, which would be drawn as boxes with a warning for
    each, the label is `class n`, counted from 1: row n of the per-class table.
    """
    drawable = _drawable(families)
    names = [shortened(gloss) for gloss in classes]
    return [
        name if name and drawable.issuperset(map(ord, name)) else f"class {number}"
        for number, name in enumerate(names, start=1)
    ]


def drawn_text(text: str, families: Sequence[str], longest: int = LONGEST_NAME) -> str:
    """A text on one line, an empty square for each character that no family has."""
    drawable = _drawable(families)
    return "".join(
        character if ord(character) in drawable else "\u25a1"
        for character in shortened(text, longest)
    )


def _drawable(families: Sequence[str]) -> set[int]:
    """The code points that one of the families has."""
    drawable: set[int] = set()
    for family in families:
        font = font_manager.get_font(font_manager.findfont(family))
        drawable |= font.get_charmap().keys()
    return drawable


def shortened(gloss: str, longest: int = LONGEST_NAME) -> str:
    """The gloss on one line; a long one without its middle, as beginnings often agree."""
    name = " ".join(gloss.split())
    if len(name) <= longest:
        return name
    tail = longest // 3
    return f"{name[: longest - tail - 1]}…{name[-tail:]}"
