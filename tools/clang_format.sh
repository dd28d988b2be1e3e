#!/bin/sh
# Formats the C and CUDA sources; with --check, only says whether they are formatted. Without clang-format: one line.
set -eu
cd "$(dirname "$0")/.."
formatter=${CLANG_FORMAT:-}
[ -n "$formatter" ] || for candidate in .venv/bin/clang-format clang-format; do
    command -v "$candidate" >/dev/null 2>&1 && formatter=$candidate && break
done
if [ -z "$formatter" ]; then
    echo "clang-format is not installed: C sources were not checked (pip install clang-format)"
    exit 0
fi
if [ "${1:-}" = --check ]; then
    set -- --dry-run --Werror
else
    set -- -i
fi
find csrc kernels \( -name '*.c' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \) -not -path '*/build/*' -print0 |
    xargs -0 "$formatter" "$@"
