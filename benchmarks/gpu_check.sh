#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: the tests marked gpu, hired-edge doctor, then the comparison, into docs/gpu.md.
#
#     benchmarks/gpu_check.sh [options of python -m benchmarks.gpu]       # make gpu-check
#     WHEELS=folder benchmarks/gpu_check.sh                               # without a network
#     GPU_PYTHON=python3 benchmarks/gpu_check.sh                          # an interpreter that has all of it already
#
# Such a folder is filled by, on a machine of the same kind with a network and this tree:
#     pip download -d folder -c constraints.txt '.[export,eval,serve,sign,tensorrt-rtx,dev]' onnxruntime-gpu hatchling editables
# Everything else goes to .venv-gpu and build/gpu: 35 GB for the 7B shape, 90 where TensorRT builds engines. What was
# measured is kept there: interrupted, it goes on where it was. Exit status 2 where there is no GPU; 1 if a test failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
environment=.venv-gpu

if ! nvidia-smi -L >/dev/null 2>&1; then
    echo "gpu-check: no NVIDIA GPU (nvidia-smi finds none here); expected one with its driver; docs/gpu.md stays as it is" >&2
    exit 2
fi

install() { # fills $environment; constraints.txt names the versions that the bundles and tests are held to
    local from=()
    if [ -n "${WHEELS:-}" ]; then from=(--no-index --find-links "$WHEELS"); fi
    local pip=("$environment/bin/python" -m pip install --disable-pip-version-check --quiet "${from[@]}")
    local base=${PYTHON:-python3} # Debian's has no ensurepip: there its own pip fills the environment
    [ -x "$environment/bin/pip" ] || "$base" -m venv --clear "$environment" >/dev/null 2>&1 || {
        "$base" -m venv --clear --without-pip "$environment"
        "$base" -m pip --python "$environment/bin/python" install --quiet "${from[@]}" pip
    }
    "${pip[@]}" -c constraints.txt -e '.[export,eval,serve,sign,tensorrt-rtx,dev]'
    # The export's own onnxruntime is the CPU's; both install the same files, so one has to go first.
    "$environment/bin/python" -m pip uninstall --quiet --yes onnxruntime onnxruntime-gpu
    "${pip[@]}" --no-deps onnxruntime-gpu
    touch "$environment/.installed"
}

if [ -n "${GPU_PYTHON:-}" ]; then
    python=$GPU_PYTHON
else
    if [ ! "$environment/.installed" -nt pyproject.toml ] || [ ! "$environment/.installed" -nt constraints.txt ]; then
        echo "gpu-check: installing into $environment (several GB with CUDA's libraries)" >&2
        install
    fi
    python=$environment/bin/python
fi

# CUDA's libraries come as wheels beside torch's; ONNX Runtime looks for them by the loader's path.
libraries=$("$python" - <<'PYTHON'
import site, sys
from pathlib import Path
folders = dict.fromkeys([*site.getsitepackages(), *sys.path])
print(":".join(str(lib) for folder in folders if folder for lib in sorted(Path(folder).glob("nvidia/*/lib"))))
PYTHON
)
export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export PYTHONPATH=".:export:runtime${PYTHONPATH:+:$PYTHONPATH}"

tests=0
"$python" -m pytest -m gpu -p no:cacheprovider || tests=$?
"$python" -m hired_edge doctor || true # it tells; what does not work shows below
"$python" -m benchmarks.gpu "$@"
if [ "$tests" -ne 0 ]; then
    echo "gpu-check: the tests marked gpu ended with status $tests: see above" >&2
    exit 1
fi
