from __future__ import annotations

import tomllib
from decimal import Decimal

import pytest
from config_files import FULL_FILE, USER_FILE
from hypothesis import given, settings
from hypothesis import strategies as st

from tengri_fast.errors import ConfigurationError
from tengri_fast.runtime.durations import Frequency, format_duration, parse_duration, parse_frequency
from tengri_fast.runtime.toml_text import join_path, key_lines, to_toml


def all_paths(value, path=()):
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from all_paths(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from all_paths(item, (*path, index))


# ---------------------------------------------------------------- durations


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0s", 0), ("1ns", 1), ("250ms", 250_000_000), ("1s", 10**9), ("1.5s", 1_500_000_000), ("2 m", 120 * 10**9),
        ("2min", 120 * 10**9), ("1h", 3600 * 10**9), ("30d", 30 * 86400 * 10**9), ("1w", 7 * 86400 * 10**9),
        ("3us", 3000), ("3µs", 3000), ("3μs", 3000), (" 7s ", 7 * 10**9), ("0.000000001s", 1),
        ("9223372036854775807ns", 2**63 - 1),
    ],
)  # fmt: skip
def test_durations(text, nanoseconds):
    assert parse_duration(text) == nanoseconds
    assert parse_duration(format_duration(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(
    "text",
    ["", "1", "s", "-1s", "1 year", "1S", "1M", "1e3s", "١s", "1s2", "nan s", "infs", ".5s", "5.s", "1.5ns",
     "9223372036854775808ns", "0.0000000001s", "1" * 30 + "s", None, 5, 1.5, b"1s"],
)  # fmt: skip
def test_wrong_durations(text):
    with pytest.raises(ConfigurationError, match=r"must be .*, was "):
        parse_duration(text)


@given(st.integers(0, 2**63 - 1))
def test_durations_round_trip(nanoseconds):
    assert parse_duration(format_duration(nanoseconds)) == nanoseconds


def test_the_text_is_the_shortest():
    assert [format_duration(n) for n in (0, 10**9, 90 * 10**9, 3600 * 10**9, 86400 * 10**9, 1500)] == [
        "0s", "1s", "90s", "1h", "1d", "1500ns",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "frequency"),
    [
        ("tick", Frequency("tick", 1)), (" tick ", Frequency("tick", 1)), ("1 tick", Frequency("tick", 1)),
        ("5 ticks", Frequency("tick", 5)), ("1s", Frequency("time", 10**9)), ("100ms", Frequency("time", 10**8)),
    ],
)  # fmt: skip
def test_frequencies(text, frequency):
    assert parse_frequency(text) == frequency
    assert parse_frequency(str(frequency)) == frequency


@pytest.mark.parametrize(
    "text", ["0 ticks", "0s", "5ticks", "ticks", "-1 ticks", "1.5 ticks", "", "every tick", None, 1]
)
def test_wrong_frequencies(text):
    with pytest.raises(ConfigurationError, match=r"must be .*, was "):
        parse_frequency(text)


# ---------------------------------------------------------------- lines of keys


@pytest.mark.parametrize("text", [USER_FILE, FULL_FILE])
def test_every_path_of_a_file_has_its_line(text):
    lines = key_lines(text)
    assert set(all_paths(tomllib.loads(text))) == set(lines)
    rows = text.splitlines()
    for path, line in lines.items():
        if isinstance(path[-1], str):
            assert path[-1] in rows[line - 1], path


def test_awkward_texts():
    text = '''\
# [not] = a table
"quoted key".'literal key'.bare = 1
a = """
[still] # a string
b = 2
ends with a quote""""
c = \'\'\'x = "1"
y\'\'\'
d = [ # comment ]
  [1, 2], "]", # , ]
  { e = "}", f.g = [
     3 ] },
]
[ t . "u v" ]
k = 2024-01-01 07:32:00 # date
[[t.w]]
x = '\\'
[[t.w]]
x = "\\"]"
[t.w.z]
y = 1
'''
    lines = key_lines(text)
    document = tomllib.loads(text)
    assert set(all_paths(document)) == set(lines)
    expected = {
        ("quoted key", "literal key", "bare"): 2, ("a",): 3, ("c",): 7, ("d",): 9, ("d", 0): 10, ("d", 0, 1): 10,
        ("d", 1): 10, ("d", 2, "e"): 11, ("d", 2, "f", "g"): 11, ("d", 2, "f", "g", 0): 12, ("t", "u v", "k"): 15,
        ("t", "w", 0, "x"): 17, ("t", "w", 1): 18, ("t", "w", 1, "x"): 19, ("t", "w", 1, "z", "y"): 21,
    }  # fmt: skip
    assert {path: lines[path] for path in expected} == expected


def test_a_table_points_at_its_own_header():
    assert key_lines("[a.b]\nx = 1\n[a]\ny = 1\n")[("a",)] == 3


def test_paths_are_written_as_people_write_them():
    assert join_path(("neural", "models", 1, "config")) == "neural.models[1].config"
    assert join_path(("a b", 'c"')) == '"a b"."c\\""'


NAMES = st.one_of(
    st.sampled_from(["a", "b", "long_name", "with-dash", "1"]), st.text(st.characters(codec="utf-8"), max_size=6)
)
VALUES = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False),
        st.text(st.characters(codec="utf-8"), max_size=12),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_what_is_written_reads_back_and_every_key_has_a_line(document):
    text = to_toml(document)
    assert tomllib.loads(text) == document
    lines = key_lines(text)
    assert set(all_paths(document)) == set(lines)
    assert all(1 <= line <= text.count("\n") for line in lines.values())


def test_writer_leaves_none_out_and_keeps_decimals():
    assert tomllib.loads(to_toml({"a": None, "b": Decimal("0.10"), "c": {"d": None}})) == {"b": 0.1, "c": {}}
    with pytest.raises(TypeError, match="no form for bytes"):
        to_toml({"a": b"x"})
