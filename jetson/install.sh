#!/usr/bin/env bash
# Installs hired-edge on a board, in a virtual environment that sees JetPack's own Python modules (tensorrt is one).
#
#     jetson/install.sh [--wheels FOLDER] [--cuda 12|13] [--require-tensorrt] VENV
#
# With --wheels: without a network, from a folder that wheels.py has filled. Without it: from this source tree and the
# index, at the versions of constraints.txt. Needs Python 3.10 or newer, no root, no compiler, no python3-venv.
set -euo pipefail

fail() {
    printf 'install.sh: error: %s\n' "$*" >&2
    exit 2
}

usage='install.sh [--wheels FOLDER] [--cuda 12|13] [--require-tensorrt] VENV'
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
wheels='' cuda='' venv='' require_tensorrt=''
while [ $# -gt 0 ]; do
    case $1 in
        --wheels | --cuda)
            [ $# -ge 2 ] || fail "$1 without a value; expected $usage"
            if [ "$1" = --wheels ]; then wheels=$2; else cuda=$2; fi
            shift 2
            ;;
        --require-tensorrt)
            require_tensorrt=yes
            shift
            ;;
        -h | --help) printf 'usage: %s\n' "$usage" && exit 0 ;;
        -*) fail "unknown option $1; expected $usage" ;;
        *)
            [ -z "$venv" ] || fail "two folders, $venv and $1; expected $usage"
            venv=$1
            shift
            ;;
    esac
done

[ -n "$venv" ] || fail "no folder to install to; expected $usage"
[ ! -e "$venv" ] || fail "$venv exists; expected a new folder; remove it or name another"
type -P "$python" >/dev/null || fail "no $python; expected Python 3.10 or newer; run: apt install python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$("$python" --version); expected 3.10 or newer; name one: PYTHON=python3.x install.sh ..."
if [ -n "$wheels" ]; then
    compgen -G "$wheels/hired_edge-*.whl" >/dev/null ||
        fail "no wheel of hired-edge in $wheels; expected a folder that wheels.py filled"
    wheels=$(cd "$wheels" && pwd)
elif [ ! -e "$tree/pyproject.toml" ]; then
    fail "no source tree around $0; expected one, or --wheels FOLDER"
fi
if [ -z "$cuda" ]; then
    # JetPack installs the CUDA toolkit as /usr/local/cuda -> cuda-12.6, or cuda-13.2.
    cuda=$(readlink -f /usr/local/cuda | sed -n 's|.*/cuda-\([0-9]*\).*|\1|p')
    [ -n "$cuda" ] || fail "no CUDA toolkit behind /usr/local/cuda; expected one, or --cuda 12 or 13"
fi
case $cuda in 12 | 13) ;; *) fail "CUDA $cuda; expected 12 (JetPack 6) or 13 (JetPack 7)" ;; esac

# NVIDIA's images pin the versions of many packages by PIP_CONSTRAINT: those pins are for what the images bring.
unset PIP_CONSTRAINT PYTHONDONTWRITEBYTECODE
# Bytecode of all that comes along, sympy's thousand files among it, would be half as much again: what is used is below.
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1

# A half-made environment is not left behind.
trap 'rm -rf "$venv"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Ubuntu ships python3 without ensurepip. There pip comes out of its own wheel, which it supports, or from the system's.
if ! "$python" -m venv --system-site-packages "$venv" >/dev/null 2>&1; then
    rm -rf "$venv"
    "$python" -m venv --system-site-packages --without-pip "$venv"
    if [ -n "$wheels" ]; then
        pip_wheel=$(compgen -G "$wheels/pip-*.whl") || fail "no wheel of pip in $wheels; run: apt install python3-venv"
        "$venv/bin/python" "$pip_wheel/pip" install --quiet --no-index --find-links "$wheels" --ignore-installed pip
    else
        "$python" -m pip --python "$venv/bin/python" install --quiet --ignore-installed pip ||
            fail "no pip for $venv; expected python3-pip or python3-venv; run: apt install python3-venv"
    fi
fi

if [ -n "$wheels" ]; then
    from=(--no-index --find-links "$wheels" 'hired-edge[cpu,serve,sign]')
else
    # The version of CUDA's bindings goes by the board.
    grep -v '^cuda-bindings=' "$tree/constraints.txt" >"$venv/constraints.txt"
    from=(--constraint "$venv/constraints.txt" "${tree}[cpu,serve,sign]")
fi
"$venv/bin/python" -m pip install --quiet --only-binary=:all: "${from[@]}" "cuda-bindings==$cuda.*"
# Importing writes the bytecode of what is imported; hired-edge's own is for the commands that run later.
"$venv/bin/python" -c 'import cuda.bindings.runtime, hired_runtime, jinja2, numpy, onnxruntime, PIL.Image, tokenizers'
"$venv/bin/python" -m compileall -q "$venv"/lib/python3*/site-packages/hired_{edge,runtime}
"$venv/bin/hired-edge" --version
# What is installed, as sbom.py has listed it: it stays with the environment, and so in the image.
if [ -n "$wheels" ] && [ -e "$wheels/sbom.cdx.json" ]; then cp "$wheels/sbom.cdx.json" "$venv/"; fi

# Found, not imported: JetPack 6's TensorRT wants libraries of the board's driver, which a container's build lacks.
seen=$("$venv/bin/python" - <<'END'
import importlib.util
spec = importlib.util.find_spec("tensorrt")
print(spec.origin if spec else "")
END
)
if [ -n "$seen" ]; then
    echo "tensorrt: $seen"
elif [ -n "$require_tensorrt" ]; then
    fail "no Python module tensorrt here; expected JetPack's; run: apt install python3-libnvinfer"
else
    echo "tensorrt: none; on a board run: sudo apt install python3-libnvinfer"
fi
trap - EXIT
echo "installed: $venv, $(du -sm "$venv" | cut -f1) MB; run $venv/bin/hired-edge"
