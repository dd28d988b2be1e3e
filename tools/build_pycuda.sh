#!/bin/sh
# Builds pycuda, which has no wheel, for the interpreter given: tools/build_pycuda.sh .venv/bin/python
#
# Its build looks for settings in ~/.aksetup-defaults.py; a temporary HOME holds them, so nothing of the user's changes.
# cuRAND is left out (we do not use it), and where no driver is installed an empty libcuda stands in at link time:
# importing pycuda.driver then says plainly that libcuda.so.1 is missing.
set -eu
python=${1:?usage: tools/build_pycuda.sh PYTHON}

root=${CUDA_ROOT:-${CUDA_HOME:-}}
if [ -z "$root" ]; then
    nvcc=$(command -v nvcc || ls /usr/local/cuda*/bin/nvcc 2>/dev/null | head -n 1 || true)
    if [ -z "$nvcc" ]; then
        echo "pycuda needs a CUDA toolkit, and nvcc is neither on PATH nor under /usr/local/cuda." >&2
        echo "Install one, or name it: CUDA_ROOT=/path/to/cuda make pycuda" >&2
        exit 1
    fi
    # Ask nvcc itself: what is on PATH may be a wrapper or a link.
    top=$("$nvcc" --dryrun -x cu /dev/null 2>&1 | sed -n 's/^#\$ TOP=//p' | head -n 1)
    root=$(cd "${top:-$(dirname "$nvcc")/..}" && pwd -P)
fi
if [ ! -f "$root/include/cuda.h" ]; then
    echo "CUDA_ROOT=$root has no include/cuda.h: that is not a CUDA toolkit" >&2
    exit 1
fi
echo "[1/3] CUDA toolkit: $root"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "[2/3] a libcuda to link against, used only while building"
"${CC:-cc}" -shared -fPIC -Wl,-soname,libcuda.so.1 -x c /dev/null -o "$work/libcuda.so"
cat >"$work/.aksetup-defaults.py" <<SETTINGS
CUDA_ROOT = "$root"
CUDA_ENABLE_CURAND = False
CUDADRV_LIB_DIR = ["$work"]
CUDART_LIB_DIR = ["$root/lib64", "$root/lib", "$root/targets/$(uname -m)-linux/lib"]
SETTINGS

echo "[3/3] building pycuda (about two minutes)"
[ -f "$HOME/.config/pip/pip.conf" ] && export PIP_CONFIG_FILE="${PIP_CONFIG_FILE:-$HOME/.config/pip/pip.conf}"
PIP_CACHE_DIR="${PIP_CACHE_DIR:-$HOME/.cache/pip}" PATH="$root/bin:$PATH" LIBRARY_PATH="$work" HOME="$work" \
    "$python" -m pip install --quiet --disable-pip-version-check "pycuda>=2025.1"
if ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1'; then
    "$python" -c "import pycuda.driver as d; print('pycuda', __import__('pycuda').VERSION_TEXT, d.get_version())"
else
    "$python" -c "import pycuda; print('pycuda', pycuda.VERSION_TEXT, '(no driver on this machine)')"
fi
