"""Writes Cython's annotated HTML for every extension, and reads it: which lines call Python?

    python tools/annotate.py [WORD ...]     all extensions, or those whose name contains a word, into build/annotate

``python_calls`` is what the tests use: for one function it lists the calls into the Python C API, line by line.
"""

from __future__ import annotations

import html
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "build" / "annotate"


def annotate(sources: Sequence[Path], target: Path = TARGET) -> dict[Path, Path]:
    """Compiles each .pyx to C with annotation; returns the HTML page of each. Unchanged ones are kept."""
    import numpy
    from Cython.Build import cythonize
    from setuptools import Extension

    extensions = [
        Extension(
            ".".join(source.relative_to(ROOT).with_suffix("").parts),
            [source.relative_to(ROOT).as_posix()],
            include_dirs=["csrc/include", numpy.get_include()],
        )
        for source in sources
    ]
    before = Path.cwd()
    os.chdir(ROOT)  # Cython derives module names from paths relative to the working directory
    try:
        cythonize(
            extensions,
            annotate=True,
            build_dir=str(target),
            include_path=[str(ROOT)],
            quiet=True,
            # The directives of a release build, as in setup.py.
            compiler_directives={
                "language_level": 3,
                "boundscheck": False,
                "wraparound": False,
                "cdivision": True,
                "initializedcheck": False,
                "embedsignature": True,
                "warn.deprecated.IF": False,
            },
        )
    finally:
        os.chdir(before)
    return {source: target / source.relative_to(ROOT).with_suffix(".html") for source in sources}


def function_lines(source: Path, name: str) -> range:
    """Line numbers (from 1) of the body of a function or method, ``Class.method`` or ``function``."""
    lines = source.read_text(encoding="utf-8").splitlines()
    first, last = 0, len(lines)
    *outer, function = name.split(".")
    for part, pattern in [
        *((word, r"^(\s*)(?:cdef\s+)?class\s+{}\b") for word in outer),
        (function, r"^(\s*)(?:async\s+)?(?:def|cdef|cpdef)\b[^=#]*?\b{}\s*\("),
    ]:
        for number in range(first, last):
            match = re.match(pattern.format(re.escape(part)), lines[number])
            if match:
                break
        else:
            raise LookupError(f"{source.name} has no `{name}`")
        indent = len(match[1])
        # The header ends with the first line that closes with a colon; comments may follow it.
        header = number
        while not re.search(r":\s*(#.*)?$", lines[header]):
            header += 1
        end = header + 1
        while end < last and (not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > indent):
            end += 1
        first, last = header + 1, end
    return range(first + 1, last + 1)


def python_calls(source: Path, page: Path, name: str) -> dict[int, set[str]]:
    """Calls into the Python C API in the body of one function: line number → names.

    Reference counts and error jumps are not calls; calls into Cython's own helpers that use Python (``__Pyx_...``) are.
    """
    body = set(function_lines(source, name))
    found: dict[int, set[str]] = {}
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"<pre class=\"cython line score-\d+\"[^>]*>.*?<span class=\"\">(\d+)</span>.*?</pre>\s*"
                        r"(<pre class='cython code score-\d+[^']*'>.*?</pre>)?", text, flags=re.DOTALL)  # fmt: skip
    if not blocks:
        raise ValueError(f"{page.name} is not an annotated page that this tool can read")
    for number, code in blocks:
        if int(number) not in body:
            continue
        names = {
            html.unescape(match[1])
            for match in re.finditer(r"<span class='(?:py_c_api|pyx_c_api)'>(\w+)</span>", code)
            if not re.fullmatch(r"__Pyx_Py[A-Z][a-z]+_[A-Z_]+", match[1])  # a macro that reads a field of an object
        }
        if names:
            found.setdefault(int(number), set()).update(names)
    return found


def main() -> int:
    """Command line."""
    words = sys.argv[1:]
    sources = [
        path
        for path in sorted((ROOT / "tengri_fast").glob("**/*.pyx"))
        if not words or any(word in str(path.relative_to(ROOT)) for word in words)
    ]
    for page in annotate(sources).values():
        print(page.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
