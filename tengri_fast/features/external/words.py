"""The word list of the lexicon (``words.json``): finance and crypto words of our own choice, by judgement.

An entry that ends in ``*`` is a stem: it stands for every word that begins with it. Without a star only the word itself
counts. Entries are lower case.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

import msgspec

__all__ = ["GROUPS", "Words", "group"]


def _load() -> dict[str, frozenset[str]]:
    text = resources.files("tengri_fast.features.external").joinpath("words.json").read_bytes()
    lines = msgspec.json.decode(text, type=dict[str, list[str]])
    return {name: frozenset(word for line in part for word in line.split()) for name, part in lines.items()}


#: Entries by the name of their group.
GROUPS: Mapping[str, frozenset[str]] = _load()

SHORTEST_STEM = 3
MEMO = 4096  # words whose answer is kept, per group
LONGEST_MEMO = 40  # characters; so memory is bounded whatever comes in


class Words:
    """Words and stems with a number each; the whole word wins, then the longest stem.

    Parameters
    ----------
    entries : mapping of str to float
    """

    def __init__(self, entries: Mapping[str, float]) -> None:
        self._whole = {entry: value for entry, value in entries.items() if not entry.endswith("*")}
        self._stems = {entry[:-1]: value for entry, value in entries.items() if entry.endswith("*")}
        self._longest = max(map(len, self._stems), default=0)
        self._memo: dict[str, float | None] = {}

    def get(self, word: str) -> float | None:
        """The number of a lower-case word, None if neither it nor a stem of it is there."""
        if word in self._memo:
            return self._memo[word]
        found = self._search(word)
        if len(word) <= LONGEST_MEMO:
            if len(self._memo) >= MEMO:
                self._memo.clear()
            self._memo[word] = found
        return found

    def _search(self, word: str) -> float | None:
        found = self._whole.get(word)
        if found is not None:
            return found
        for length in range(min(len(word), self._longest), SHORTEST_STEM - 1, -1):
            found = self._stems.get(word[:length])
            if found is not None:
                return found
        return None

    def __contains__(self, word: str) -> bool:
        return self.get(word) is not None


def group(**numbers: float) -> Words:
    """Groups of entries with their numbers; of an entry in several groups the last counts."""
    return Words({entry: value for name, value in numbers.items() for entry in sorted(GROUPS[name])})
