"""What kind each character of a text is, by one look into a table for the whole text."""

from functools import cache

import numpy as np

# Kinds. The last four and HAN and KANA are letters; NO is の, which Chinese shops and titles use for 的.
BLANK, SIGN, DIGIT, HAN, KANA, NO, HANGUL, LATIN, OTHER = range(9)
KINDS = 9
_HAN = ((0x3005, 0x3008), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x40000))
_KANA = ((0x3041, 0x3097), (0x3099, 0x30A0), (0x30A1, 0x30FB), (0x30FC, 0x3100), (0x31F0, 0x3200), (0xFF66, 0xFFA0))
_HANGUL = ((0x1100, 0x1200), (0x3131, 0x3190), (0xA960, 0xA980), (0xAC00, 0xD7FC))
_LATIN = ((0x41, 0x5B), (0x61, 0x7B), (0xC0, 0xD7), (0xD8, 0xF7), (0xF8, 0x250), (0x1E00, 0x1F00), (0xFF21, 0xFF5B))
_ABOVE = 0x40000  # no letter has a code as high as this


def codes_of(text: str) -> np.ndarray:
    """uint32 [characters]: the code points."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def kinds_of(codes: np.ndarray) -> np.ndarray:
    """uint8 [characters]: the kind of each code point, about 2 ns each."""
    kinds: np.ndarray = _table()[np.minimum(codes, _ABOVE)]
    return kinds


@cache
def _table() -> np.ndarray:
    """uint8 by code point. Blocks of Han are whole: Python's own tables lack the newest extensions."""
    table = np.full(_ABOVE + 1, SIGN, dtype=np.uint8)
    for code in range(0x20000):
        character = chr(code)
        if character.isspace():
            table[code] = BLANK
        elif character.isalpha():
            table[code] = OTHER
        elif character.isalnum():
            table[code] = DIGIT
    for kind, blocks in ((LATIN, _LATIN), (HANGUL, _HANGUL), (KANA, _KANA), (HAN, _HAN)):
        for first, end in blocks:
            part = table[first:end]
            if kind in (LATIN, HANGUL):  # signs stand between the letters of these blocks
                part[part == OTHER] = kind
            else:
                part[:] = kind
    table[ord("の")] = NO
    return table
