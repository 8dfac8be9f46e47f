"""Names as a plot can draw them: the fonts that have their letters, and words for letters that no font here has."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from matplotlib.font_manager import findSystemFonts, fontManager, get_font

from fastrecipes.errors import clean

__all__ = ["Lettering", "lettering_of"]

BASE = "DejaVu Sans"  # comes along with matplotlib
_LAST_RESORT = "Last Resort"  # a font that draws a box for every letter
_JOINER = "\u200d"  # makes one emoji of several
_INVISIBLE = ("Cf", "Mn", "Me")  # marks that draw nothing of their own


@dataclass(frozen=True)
class Lettering:
    """How some texts are drawn: font families in the order in which they are tried, and what none of them has."""

    families: tuple[str, ...] = (BASE,)
    missing: frozenset[str] = frozenset()

    def shown(self, text: str, most: int = 28) -> str:
        """`text` on one line, in letters that can be drawn, cut in its middle to `most` letters.

        >>> Lettering(missing=frozenset("\\N{AUTOMOBILE}")).shown("a \\N{AUTOMOBILE}")
        'a [automobile]'
        >>> Lettering().shown("a very long name of a class", 12)
        'a very…class'
        """
        told = "".join(_named(letter) if letter in self.missing else letter for letter in _one_line(text))
        return told if len(told) <= most else f"{told[: most // 2]}…{told[len(told) - (most - 1) // 2 :]}"


def lettering_of(texts: Iterable[str]) -> Lettering:
    """The fonts of this machine that draw `texts`; looks beyond the base font only for letters that it lacks."""
    wanted = {letter for text in texts for letter in _one_line(text)} | {"…"}
    families, missing = [BASE], wanted - _letters(fontManager.findfont(BASE))
    for name, path in _others() if missing else ():
        has = missing & _letters(path)
        if has:
            families.append(name)
            missing -= has
        if not missing:
            break
    return Lettering(tuple(families), frozenset(missing))


def _one_line(text: str) -> str:
    """Without what would break or hide the line: control characters shown, line ends and tabs as blanks."""
    return " ".join(clean(text.replace(_JOINER, "")).split())


def _letters(path: str) -> set[str]:
    return {chr(code) for code in get_font(path).get_charmap()}


def _others() -> Iterator[tuple[str, str]]:
    """Upright fonts of this machine, those without serifs first; fonts that matplotlib has not seen yet are added."""
    known = {font.fname for font in fontManager.ttflist}
    for path in sorted(set(findSystemFonts()) - known):
        try:
            fontManager.addfont(path)
        except (OSError, RuntimeError, NotImplementedError, ValueError):  # such as colour fonts, which it cannot draw
            continue
    plain = (font for font in fontManager.ttflist if font.style == "normal" and _LAST_RESORT not in font.name)
    for font in sorted(plain, key=lambda font: ("Sans" not in font.name, font.name)):
        if Path(font.fname).is_file():
            yield font.name, font.fname


def _named(letter: str) -> str:
    """A letter that no font has: nothing where it shows nothing, else its name in Unicode, or its number."""
    if unicodedata.category(letter) in _INVISIBLE:
        return ""
    name = unicodedata.name(letter, "")
    return f"[{name.lower()}]" if name and not name.startswith("CJK") else f"[U+{ord(letter):04X}]"
