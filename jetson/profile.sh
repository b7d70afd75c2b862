#!/usr/bin/env bash
# Measures a bundle on this board:  jetson/profile.sh BUNDLE --image FILE -o FOLDER [options of hired-edge profile]
# See container.sh for what it mounts.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -ge 1 ] || { echo "profile.sh: error: no bundle; expected: jetson/profile.sh BUNDLE [options]" >&2; exit 2; }
HIRED_EDGE_SCRIPT=profile.sh exec "$here/container.sh" profile "$@"
