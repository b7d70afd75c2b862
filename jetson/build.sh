#!/usr/bin/env bash
# Builds the TensorRT engines of a bundle, on this board:  jetson/build.sh BUNDLE [options of hired-edge build]
# See container.sh for what it mounts.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -ge 1 ] || { echo "build.sh: error: no bundle; expected: jetson/build.sh BUNDLE [options]" >&2; exit 2; }
HIRED_EDGE_SCRIPT=build.sh exec "$here/container.sh" build "$@"
