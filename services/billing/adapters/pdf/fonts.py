"""The fonts of printed documents: Noto Sans for Latin, Greek and Cyrillic, Noto Sans CJK for the rest.

Both come from packages under the SIL Open Font License. reportlab embeds TrueType outlines of one weight; Noto Sans is
a variable font, and the CJK font has PostScript outlines. So each document gets small fonts that are made of the glyphs
that it uses: in the right weight, with quadratic curves, and always the same for the same characters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import fontpkg_noto_sans
import noto_cjk_sans_jp_regular
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.cu2quPen import Cu2QuPen
from fontTools.pens.recordingPen import DecomposingRecordingPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont

NOTDEF: Final = ".notdef"
UNKNOWN: Final = "\ufffd"
"""Stands for a character that no font has."""

CURVE_ERROR_MAX: Final = 1.0
"""How far a quadratic curve may stray from the cubic one, in thousandths of the type's size."""

_FIRST_CJK: Final = 0x2E80
"""From here on the CJK font is asked first: Unicode's CJK radicals."""


def _file(module: Any, pattern: str) -> Path:
    (path,) = Path(module.__file__).parent.rglob(pattern)
    return path


class Face:
    """A font file in one weight, of which small fonts are made."""

    def __init__(self, name: str, path: Path, location: Mapping[str, float]) -> None:
        self.name = name
        self._path = path
        self._location = dict(location)

    @cached_property
    def _font(self) -> TTFont:
        return TTFont(self._path, lazy=True)

    @cached_property
    def _characters(self) -> dict[int, str]:
        characters: dict[int, str] = self._font.getBestCmap()
        return characters

    @cached_property
    def _glyphs(self) -> Any:
        return self._font.getGlyphSet(location=self._location)

    def has(self, character: str) -> bool:
        """Whether the font can print the character."""
        return ord(character) in self._characters

    def subset(self, characters: set[str]) -> bytes:
        """A TrueType font with the glyphs of `characters`, all of which the face has."""
        points = sorted(ord(character) for character in characters)
        names = {point: self._characters[point] for point in points}
        order = [NOTDEF, *dict.fromkeys(name for name in names.values() if name != NOTDEF)]
        builder = FontBuilder(self._font["head"].unitsPerEm, isTTF=True)
        builder.setupGlyphOrder(order)
        builder.setupCharacterMap(names)
        builder.setupGlyf({name: self._outline(name) for name in order})
        left = {
            name: builder.font["glyf"][name].xMin if len(builder.font["glyf"][name].coordinates) else 0
            for name in order
            if hasattr(builder.font["glyf"][name], "coordinates")
        }
        builder.setupHorizontalMetrics({name: (round(self._glyphs[name].width), left.get(name, 0)) for name in order})
        head, line = self._font["hhea"], self._font["OS/2"]
        builder.setupHorizontalHeader(ascent=head.ascent, descent=head.descent)
        builder.setupNameTable({"familyName": self.name, "styleName": "Regular", "psName": self.name})
        builder.setupOS2(
            sTypoAscender=line.sTypoAscender,
            sTypoDescender=line.sTypoDescender,
            usWinAscent=line.usWinAscent,
            usWinDescent=line.usWinDescent,
            sCapHeight=getattr(line, "sCapHeight", 0),
        )
        builder.setupPost()
        # Without the time of making, so that the same characters give the same bytes.
        builder.updateHead(created=0, modified=0)
        builder.font.recalcTimestamp = False
        out = BytesIO()
        builder.save(out)
        return out.getvalue()

    def _outline(self, name: str) -> Any:
        recorded = DecomposingRecordingPen(self._glyphs)
        self._glyphs[name].draw(recorded)
        pen = TTGlyphPen(None)
        is_cubic = any(operator == "curveTo" for operator, _ in recorded.value)
        # PostScript outlines turn the other way round than TrueType's.
        recorded.replay(Cu2QuPen(pen, CURVE_ERROR_MAX, reverse_direction=True) if is_cubic else pen)
        return pen.glyph()


class Typesetter:
    """Chooses the face of each character."""

    def __init__(self) -> None:
        latin = _file(fontpkg_noto_sans, "NotoSans[[]*.ttf")
        self.regular = Face("NotoSans", latin, {"wght": 400, "wdth": 100})
        self.bold = Face("NotoSansBold", latin, {"wght": 700, "wdth": 100})
        self.cjk = Face("NotoSansCJK", _file(noto_cjk_sans_jp_regular, "*.otf"), {})

    def runs(self, text: str, *, bold: bool = False) -> Iterator[tuple[Face, str]]:
        """The text in pieces of one face each; what no face has becomes U+FFFD. CJK has one weight."""
        placed = [self._place(character, self.bold if bold else self.regular) for character in text]
        for face, run in groupby(placed, key=lambda item: item[0]):
            yield face, "".join(character for _, character in run)

    def _place(self, character: str, first: Face) -> tuple[Face, str]:
        order = (self.cjk, first) if ord(character) >= _FIRST_CJK else (first, self.cjk)
        for face in order:
            if face.has(character):
                return face, character
        return first, UNKNOWN
