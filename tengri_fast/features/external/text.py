"""Headlines to tokens: plain rules, linear time, the same on every machine.

A headline is cut at `MAX_CHARACTERS`, brought to Unicode form NFKC, and control characters, lone surrogates and
invisible format characters become spaces. Then it is split into words, numbers and marks. Hyphens split ("one-week" is
two words), apostrophes do not ("don't" is one), and dots inside an abbreviation vanish ("U.S." is "us").
"""

from __future__ import annotations

import math
import re
import unicodedata
from typing import NamedTuple

__all__ = ["MAX_CHARACTERS", "Token", "clean", "tokenize"]

MAX_CHARACTERS = 1000

_QUOTES = str.maketrans({"‘": "'", "’": "'", "ʼ": "'", "`": "'", "“": '"', "”": '"', "–": "-", "—": ";", "−": "-"})
_TOKEN = re.compile(
    r"""
    (?P<number> (?:(?<![^\s(])[+-])?[$€£¥]?[0-9][0-9,]*(?:\.[0-9]+)?) (?P<percent>\s?%)?
    | (?P<short> (?:[^\W\d_]\.){2,} )
    | (?P<word> [^\W\d_]+(?:'[^\W\d_]+)? )
    | (?P<comma> , )
    | (?P<stop> [;:!?] | \s-+\s | \.(?=\s|$) )
    """,
    re.VERBOSE,
)


class Token(NamedTuple):
    """A piece of a headline.

    Attributes
    ----------
    text : str
        As written, without dots of an abbreviation; "" for a mark.
    lower : str
        Case-folded; "" for a mark that ends a clause, "," for a comma.
    value : float
        Of a number, with its sign; NaN for anything else.
    percent : bool
        Whether a percent sign follows the number.
    """

    text: str
    lower: str
    value: float
    percent: bool

    @property
    def is_stop(self) -> bool:
        """Whether the token ends a clause."""
        return not self.lower

    @property
    def is_number(self) -> bool:
        """Whether the token is a number."""
        return self.value == self.value


_STOP = Token("", "", math.nan, False)
_COMMA = Token("", ",", math.nan, False)


def clean(headline: str) -> str:
    """The text that is read: at most `MAX_CHARACTERS`, NFKC, plain quotes, single spaces, nothing invisible."""
    text = headline[:MAX_CHARACTERS].translate(_QUOTES)
    text = "".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Cf", "Co", "Cn", "Zl", "Zp") else c for c in text)
    return " ".join(unicodedata.normalize("NFKC", text)[:MAX_CHARACTERS].split())


def tokenize(text: str) -> list[Token]:
    """Tokens of a cleaned headline, in order."""
    tokens = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "word":
            word = match["word"]
            tokens.append(Token(word, word.casefold(), math.nan, False))
        elif kind in ("number", "percent"):
            digits = match["number"]
            plain = "".join(c for c in digits if c.isascii() and (c.isdigit() or c in ".-+"))
            tokens.append(Token(digits, plain, float(plain), match["percent"] is not None))
        elif kind == "short":
            word = match["short"].replace(".", "")
            tokens.append(Token(word, word.casefold(), math.nan, False))
        elif kind == "comma":
            tokens.append(_COMMA)
        else:
            short = bool(tokens) and match[0] == "." and not tokens[-1].is_number and 1 <= len(tokens[-1].lower) <= 4
            if not short:  # "Dec. gold", "St. Louis": the dot belongs to the word
                tokens.append(_STOP)
    return tokens
