#!/usr/bin/env bash
# Answers a question on this board:  jetson/run.sh BUNDLE --image FILE --prompt TEXT [options of hired-edge run]
# See container.sh for what it mounts.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -ge 1 ] || { echo "run.sh: error: no bundle; expected: jetson/run.sh BUNDLE [options]" >&2; exit 2; }
HIRED_EDGE_SCRIPT=run.sh exec "$here/container.sh" run "$@"
