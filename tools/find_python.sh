#!/bin/sh
# Prints the path of a Python interpreter that can build and run tengri_fast.
#
#   tools/find_python.sh [VERSION ...]      default: 3.12 3.13
#
# Candidates are run, not only looked up: a version manager may put a `python3.12` on PATH that fails when it is called.
# Order: python<VERSION> on PATH, then the versions of pyenv, then `python3` when it is one of the versions.
# PYTHON=/path/to/python chooses one by hand. A candidate needs the venv module and the C headers (Python.h).

set -u
versions=${*:-3.12 3.13}

# Prints the real path when "$1" runs, is one of $versions, and can make environments and extensions.
try() {
    "$1" - $versions 2>/dev/null <<'PROBE'
import importlib.util, os, sys, sysconfig
version = "%d.%d" % sys.version_info[:2]
usable = (
    version in sys.argv[1:]
    and sys.implementation.name == "cpython"
    and importlib.util.find_spec("venv")
    and importlib.util.find_spec("ensurepip")
    and os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h"))
)
if not usable:
    sys.exit(1)
print(sys.executable)
PROBE
}

if [ -n "${PYTHON:-}" ]; then
    try "$PYTHON" && exit 0
    echo "PYTHON=$PYTHON does not run, is not one of: $versions, or lacks the venv module or Python.h" >&2
    exit 1
fi

for version in $versions; do
    try "python$version" && exit 0
done
for root in "${PYENV_ROOT:-}" "${HOME:-}/.pyenv"; do
    [ -d "$root/versions" ] || continue
    for version in $versions; do
        for candidate in "$root/versions/$version"*/bin/python; do
            [ -x "$candidate" ] && try "$candidate" && exit 0
        done
    done
done
try python3 && exit 0

first=$(echo "$versions" | cut -d' ' -f1)
cat >&2 <<MESSAGE
No usable Python found (wanted: $versions, with the venv module and the C headers). Install one, for example:
    Debian, Ubuntu    sudo apt install python$first python$first-venv python$first-dev
    Fedora            sudo dnf install python$first-devel
    macOS             brew install python@$first
    pyenv             pyenv install $first
or name one that you have: make PYTHON=/path/to/python ...
MESSAGE
exit 1
