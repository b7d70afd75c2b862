#!/usr/bin/env bash
# Serves a bundle on this board:  jetson/serve.sh BUNDLE [options of hired-edge serve]
# In the board's own network: on loopback, or with HIRED_EDGE_API_KEY set and --host on others. See container.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -ge 1 ] || { echo "serve.sh: error: no bundle; expected: jetson/serve.sh BUNDLE [options]" >&2; exit 2; }
HIRED_EDGE_SCRIPT=serve.sh exec "$here/container.sh" serve "$@"
