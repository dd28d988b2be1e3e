"""Sentiment of a headline from a word list and a few rules of grammar. No training, no data, the same bits everywhere.

Every hit has a signed weight w. With S the sum of the weights, A the sum of their sizes and U the number of words of
doubt, the score is

    score = S / (A + 1 + U / 2)        in (-1, 1); 0 without a hit

so one plain hit gives 0.5, agreeing hits approach 1, and opposing hits cancel. Weights:

- A positive or negative word: 1, strong ones 1.5, words of the court -0.75.
- A direction ("rises", "lower", "up 5%"): its sign times the polarity of what moves (profit +1, loss and cost -1,
  dollar and rates 0; 0.75 if nothing is named). What moves is the nearest subject of the same clause: after the word
  for transitive verbs and adjectives ("cuts costs", "lower costs"), otherwise before it, then after it. A subject
  that moves loses its own weight, so "loss narrowed" is good. A percentage p beside the direction multiplies by
  1 + min(p, 20) / 40.
- "record high", "six-month low": +1, -1. A signed percentage ("+5%") without a direction word: +1, -1.
- "beats estimates", "misses forecasts", "above expectations", "short of": +1.5, -1.5.
- "swings to a profit", "turns to loss": +1.5, -1.5. "profit ... compared with a loss": +1.5, and the other way -1.5.
- Two amounts compared ("sales of 12.5 against 10.2") in a clause without a direction: sign times polarity times 0.75.
- A word of strength within two words before or one after: times 1.5 ("sharply") or 0.5 ("slightly").
- A negator within three words before ("not", "no longer", "fails to", "avoids"): times -0.75.
- After "as", "on", "amid", "despite" and the like, to the end of the clause: times 0.4, because that is the reason, not
  the news. After "but" and "however": what stood before counts half.
- Clauses (between ";", ":", ".", "!", "?" and dashes) after the first one with a hit: times 0.6.

The idea of shifting valence by negation and strength is from Polanyi and Zaenen, "Contextual Valence Shifters" (2006);
the order "direction times what moves" from Malo et al., "Good debt or bad debt" (JASIST 2014). The words
and weights are ours.
"""

from __future__ import annotations

from typing import NamedTuple

from tengri_fast.features.external.text import Token, clean, tokenize
from tengri_fast.features.external.words import GROUPS, group

__all__ = ["Sentiment", "analyse", "sentiment"]

_SUBJECT_BEFORE = 9
_SUBJECT_AFTER = 4
_ADJECTIVE_AFTER = 2
_LATER_CLAUSE = 0.6


class Sentiment(NamedTuple):
    """What was found in a headline.

    Attributes
    ----------
    score : float
        From -1 to 1.
    doubt : int
        Words of doubt.
    hits : tuple of (str, float)
        Words that counted, with their weights, in the order of the headline.
    """

    score: float
    doubt: int
    hits: tuple[tuple[str, float], ...]


_POLAR = group(court=-0.75, negative=-1.0, positive=1.0, strong_negative=-1.5, strong_positive=1.5)
_DOUBT = group(doubt=1.0)
_DIRECTIONS = group(up=1.0, down=-1.0)
_TRANSITIVE = group(transitive_up=1.0, transitive_down=-1.0)
_SUBJECTS = group(more_is_good=1.0, more_is_bad=-1.0, more_is_neither=0.0)
_STRENGTH = group(stronger=1.5, weaker=0.5)
_NEGATORS = group(negators=1.0)
_YARDSTICKS = group(yardsticks=1.0)
_ADJECTIVES = GROUPS["adjectives"]
# What follows is the reason, and about something else: "gold falls as the dollar gains".
_REASONS = GROUPS["reasons"]
_ABOVE = GROUPS["above"]
_BELOW = GROUPS["below"]
_TURNS = GROUPS["turns"]
_REACHED = GROUPS["reached"]
_SPANS = GROUPS["spans"]
_COMPARED = GROUPS["compared"]
_BETWEEN = GROUPS["between"]
_LINKS = GROUPS["links"]
_UPWARD = GROUPS["upward"]
_ARTICLES = GROUPS["articles"]
_NO_DIRECTION = GROUPS["up_is_no_direction_after"]
_OUTCOMES = group(good_outcomes=1.0, bad_outcomes=-1.0)
_NOUNS = group(gains=1.0, losses=-1.0)
# Only with a number behind: "tops 400", "below 1,200".
_WITH_NUMBER = group(rises_above_a_number=1.0, falls_below_a_number=-1.0)


def sentiment(headline: str) -> float:
    """Score of a headline, from -1 to 1; 0 if nothing is found."""
    return analyse(headline).score


def analyse(headline: str) -> Sentiment:
    """Score of a headline with the words that made it.

    Parameters
    ----------
    headline : str
        Any text; read as `text.clean` leaves it.

    Returns
    -------
    Sentiment
    """
    return score_tokens(tokenize(clean(headline)))


def score_tokens(tokens: list[Token]) -> Sentiment:
    """As `analyse`, for tokens of a cleaned headline."""
    lower = [token.lower for token in tokens]
    found: dict[int, float] = {}
    used: set[int] = set()
    start = 0
    for end in range(len(tokens) + 1):
        if end == len(tokens) or tokens[end].is_stop:
            clause = _clause(tokens, lower, start, end, used)
            factor = _LATER_CLAUSE if found else 1.0
            found.update({i: factor * weight for i, weight in clause.items()})
            start = end + 1
    doubt = sum(1 for i, word in enumerate(lower) if word and not tokens[i].is_number and word in _DOUBT)
    if not found:
        return Sentiment(0.0, doubt, ())
    hits = tuple((lower[i], found[i]) for i in sorted(found))
    total = size = 0.0
    for _, weight in hits:
        total += weight
        size += abs(weight)
    return Sentiment(total / (size + 1.0 + 0.5 * doubt), doubt, hits)


def _clause(tokens: list[Token], lower: list[str], start: int, end: int, used: set[int]) -> dict[int, float]:
    """Weights of the words from `start` to `end`, between two marks."""
    mine: dict[int, float] = {}
    moved = False
    taken: set[int] = set()  # what moved may move again, but has no weight of its own
    _phrases(lower, start, end, mine, used)
    for i in range(start, end):
        if i in used or tokens[i].is_number:
            continue
        sign, transitive = _direction(lower, i, start, end, used)
        if not sign:
            continue
        moved = True
        used.add(i)
        noun = _moved_noun(lower, i, end) if lower[i] in _TRANSITIVE else None
        if noun is not None:  # "trims gains", "extends losses"
            used.add(noun)
            mine[i] = sign * (_NOUNS.get(lower[noun]) or 0.0)
            continue
        at = _subject(lower, i, start, end, transitive, used)
        polarity = 0.75 if at is None else _subject_value(lower[at])
        if at is not None:
            taken.add(at)
            mine.pop(at, None)
        if polarity:
            mine[i] = sign * polarity * _size(tokens, i, start, end)
    used |= taken
    for i in range(start, end):
        if i in used:
            continue
        if tokens[i].is_number:
            if tokens[i].percent and tokens[i].text[0] in "+-" and not moved and tokens[i].value:
                mine[i] = 1.0 if tokens[i].value > 0.0 else -1.0
            continue
        polar = _POLAR.get(lower[i])
        if polar is not None and lower[i] not in _NEGATORS:
            mine[i] = polar
    if not moved:
        _comparison(tokens, lower, start, end, mine, used)
    _shift(lower, start, end, mine)
    return mine


def _phrases(lower: list[str], start: int, end: int, mine: dict[int, float], used: set[int]) -> None:
    """Fixed turns of phrase, which use up their words."""
    for i in range(start, end):
        word = lower[i]
        if word in _ABOVE or word in _BELOW:
            for j in range(i + 1, min(i + 5, end)):
                if lower[j] in _YARDSTICKS:
                    mine[i] = 1.5 if word in _ABOVE else -1.5
                    used.update((i, j))
                    break
        if word in ("high", "highs", "low", "lows") and any(lower[j] in _SPANS for j in range(max(start, i - 2), i)):
            away = any(lower[j] in ("off", "from") for j in range(max(start, i - 4), i))
            mine[i] = (1.0 if word[0] == "h" else -1.0) * (-1.0 if away else 1.0)
            used.add(i)
        if (
            word == "record"
            and any(lower[j] in _REACHED for j in range(max(start, i - 3), i))
            and (i + 1 == end or lower[i + 1] not in ("high", "highs", "low", "lows"))
        ):
            mine[i] = 1.0
            used.add(i)
        if word in ("to", "into") and any(lower[j] in _TURNS for j in range(max(start, i - 3), i)):
            for j in range(i + 1, min(i + 4, end)):
                became = _OUTCOMES.get(lower[j])
                if became is not None:
                    mine[j] = 1.5 * became
                    used.update(range(max(start, i - 3), j + 1))
                    break
        outcome = _OUTCOMES.get(word)
        if outcome is not None and i not in used:
            j = i - 1
            while j > start and lower[j] in _BETWEEN:
                j -= 1
            other = next((k for k in range(start, j) if _OUTCOMES.get(lower[k]) == -outcome), None)
            if other is not None and (lower[j] in _COMPARED or lower[j].startswith("compar")):
                mine[i] = -1.5 * outcome
                used.update((other, i))


def _direction(lower: list[str], i: int, start: int, end: int, used: set[int]) -> tuple[float, bool]:
    """(sign, whether it acts on what follows) of word i; (0, False) if it is no direction."""
    word = lower[i]
    after = lower[i + 1] if i + 1 < end else ""
    counted = after[:1].isdigit()
    crossed = _WITH_NUMBER.get(word)
    if crossed is not None:
        return (crossed, False) if counted else (0.0, False)
    if word in _UPWARD and not counted and (after == "to" or (i > start and lower[i - 1] in _NO_DIRECTION)):
        return 0.0, False
    if word == "back" and i > start and lower[i - 1] in ("pull", "pulls", "pulled"):
        return -1.0, False
    if lower[i] in _TRANSITIVE and _moved_noun(lower, i, end) is not None:
        return _TRANSITIVE.get(word) or 0.0, True
    transitive = _TRANSITIVE.get(word)
    plain = _DIRECTIONS.get(word)
    if transitive is not None:
        near = _subject(lower, i, start, end, True, used)
        if near is not None and near > i:
            return transitive, True
    if plain is not None:
        return plain, word in _ADJECTIVES
    return (0.0, False) if transitive is None else (transitive, True)


def _moved_noun(lower: list[str], i: int, end: int) -> int | None:
    """Place of "gains", "losses" and the like right behind a transitive verb."""
    for j in range(i + 1, min(i + 6, end)):
        if lower[j] in _NOUNS:
            return j
        if (lower[j] in _LINKS and lower[j] != "of") or lower[j] in _REASONS:
            return None
    return None


def _subject_value(word: str) -> float:
    value = _SUBJECTS.get(word)
    return 0.75 if value is None else value


def _subject(lower: list[str], i: int, start: int, end: int, after_first: bool, used: set[int]) -> int | None:
    """Place of what moves, or None."""

    def is_subject(j: int) -> bool:
        return j not in used and lower[j] in _SUBJECTS and lower[j] not in _DIRECTIONS

    reach = _ADJECTIVE_AFTER if lower[i] in _ADJECTIVES else _SUBJECT_AFTER
    after = range(i + 1, min(i + 1 + reach, end))
    before = range(i - 1, max(start, i - _SUBJECT_BEFORE) - 1, -1)
    for j in after if after_first else ():
        if lower[j] in _REASONS or lower[j] in _LINKS:
            break
        if is_subject(j):
            return j
    for j in before:
        if lower[j] in _REASONS and lower[j] != "on":
            break
        if is_subject(j):
            return j
    for j in () if after_first else after:
        if lower[j] in _REASONS or lower[j] in _LINKS:
            break
        if is_subject(j):
            return j
    return None


def _size(tokens: list[Token], i: int, start: int, end: int) -> float:
    """Factor of the percentage beside a direction."""
    for j in (*range(i + 1, min(i + 4, end)), *range(i - 1, max(start, i - 3) - 1, -1)):
        if tokens[j].is_number:
            named = j + 1 < end and tokens[j + 1].lower in ("percent", "pct", "per")
            if tokens[j].percent or named:
                percentage: float = min(abs(tokens[j].value), 20.0)
                return 1.0 + percentage / 40.0
    return 1.0


def _amount(token: Token) -> bool:
    year = 1900.0 <= token.value <= 2100.0 and "." not in token.lower
    return token.is_number and abs(token.value) < 1e15 and not token.percent and not year


def _comparison(tokens: list[Token], lower: list[str], start: int, end: int, mine: dict[int, float],
                used: set[int]) -> None:  # fmt: skip
    """ "sales of 12.5 against 10.2": the sign of the difference, for what is compared."""
    for i in range(start, end):
        if lower[i] not in _COMPARED and not lower[i].startswith("compar"):
            continue
        now = next((j for j in range(i - 1, start - 1, -1) if _amount(tokens[j])), None)
        then = next((j for j in range(i + 1, end) if _amount(tokens[j])), None)
        subject = next((j for j in range(start, i) if lower[j] in _SUBJECTS), None)
        if now is None or then is None or subject is None:
            continue
        difference = tokens[now].value - tokens[then].value
        polarity = _subject_value(lower[subject])
        if difference and polarity:
            mine[now] = (0.75 if difference > 0.0 else -0.75) * polarity
            mine.pop(subject, None)
            used.add(subject)
        return


def _shift(lower: list[str], start: int, end: int, mine: dict[int, float]) -> None:
    """Strength, negation, reasons and "but"."""
    reason = next((i for i in range(start + 1, end) if lower[i] in _REASONS), end)
    turn = next((i for i in range(start + 1, end) if lower[i] in ("but", "however", "yet")), end)
    flipped: set[int] = set()
    for i in sorted(mine):
        weight = mine[i]
        near = (*range(i - 1, max(start, i - 2) - 1, -1), *range(i + 1, min(i + 2, end)))
        strength = next((s for j in near if (s := _STRENGTH.get(lower[j])) is not None), None)
        if strength is not None:
            weight *= strength
        seen = 0
        for j in range(i - 1, start - 1, -1):
            if seen == 3:
                break
            if lower[j] in _NEGATORS:
                only = j + 1 < end and lower[j + 1] == "only"
                if not only:
                    weight *= -0.75
                    flipped.add(j)
                break
            if lower[j] not in _ARTICLES:
                seen += 1
        if turn < end:
            weight *= 0.5 if i < turn else 1.0
        if reason < i and not (turn < end and reason < turn < i):
            weight *= 0.4
        mine[i] = weight
    for j in range(start, end):
        if lower[j] in _NEGATORS and j not in flipped and j not in mine:
            polar = _POLAR.get(lower[j])
            if polar is not None:
                mine[j] = polar
