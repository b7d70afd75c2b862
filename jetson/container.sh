#!/usr/bin/env bash
# Runs `hired-edge COMMAND BUNDLE ...` in the container for this board's JetPack; builds the image if it is not there.
#
#     jetson/container.sh COMMAND BUNDLE [options of the command]
#
# BUNDLE is mounted, to be written to: engines go into it. The folder that you are in is mounted too, so pictures and
# reports below it have the same names inside. Timing caches go to $HIRED_EDGE_CACHE (default: ~/.cache/hired-edge).
# Set JETPACK=jp7 or jp6 to choose an image, DOCKER="sudo docker" if your user may not call docker.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

fail() {
    printf '%s: error: %s\n' "${HIRED_EDGE_SCRIPT:-container.sh}" "$*" >&2
    exit 2
}

# jp7 or jp6, from the major number in `# R39 (release), REVISION: 2.0, ...`.
jetpack() {
    local release=${L4T_RELEASE_FILE:-/etc/nv_tegra_release} major conf
    [ -r "$release" ] || fail "no $release; expected a Jetson; elsewhere say which: JETPACK=jp7 or JETPACK=jp6"
    major=$(sed -n 's/^# R\([0-9]*\) .*/\1/p' "$release")
    conf=$(grep -lx "L4T_MAJOR=$major" "$here"/*.conf) ||
        fail "Jetson Linux ${major:-unknown} in $release; expected 39 (JetPack 7.2) or 36 (JetPack 6)"
    basename "$conf" .conf
}

[ $# -ge 2 ] || fail "$# arguments; expected COMMAND BUNDLE [options]"
command=$1 bundle=$2
shift 2
[ -f "$bundle/manifest.json" ] || fail "no manifest.json in $bundle; expected a bundle that hired-edge export wrote"
bundle=$(cd "$bundle" && pwd)
jetpack=${JETPACK:-$(jetpack)}
grep -qs ^BASE_IMAGE= "$here/$jetpack.conf" || fail "JETPACK=$jetpack; expected jp7 or jp6"
# shellcheck source=jp7.conf
. "$here/$jetpack.conf"
compgen -G "$here/wheels/$jetpack/hired_edge-*.whl" >/dev/null ||
    fail "no wheels in $here/wheels/$jetpack; expected what this writes: python3 jetson/wheels.py $jetpack"
read -ra docker <<<"${DOCKER:-docker}"

# The tag says what is in the image, so that newer wheels make a newer image.
inputs=("$here/Dockerfile" "$here/install.sh" "$here/$jetpack.conf" "$here/wheels/$jetpack"/*)
image=hired-edge:$jetpack-$(cat "${inputs[@]}" | sha256sum | cut -c1-12)
if ! "${docker[@]}" image inspect "$image" >/dev/null 2>&1; then
    "${docker[@]}" build --tag "$image" --build-arg "BASE_IMAGE=$BASE_IMAGE" --build-arg "CUDA_MAJOR=$CUDA_MAJOR" \
        --build-arg "WHEELS=wheels/$jetpack" "$here" >&2
fi

cache=${HIRED_EDGE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hired-edge}
mkdir -p "$cache"
# A server listens where the board does; nothing else has a network.
network=none
[ "$command" != serve ] || network=host
options=(
    --rm --init --runtime nvidia --network "$network" --security-opt no-new-privileges
    --user "$(id -u):$(id -g)"
    --volume "$bundle:$bundle" --volume "$PWD:$PWD" --workdir "$PWD"
    --volume "$(cd "$cache" && pwd):/cache/hired-edge"
)
# The device files of the GPU belong to these groups.
for group in video render; do
    if entry=$(getent group "$group"); then options+=(--group-add "$(cut -d: -f3 <<<"$entry")"); fi
done
# By their names alone: a value would be seen in the list of processes.
for secret in HIRED_EDGE_API_KEY HIRED_EDGE_KEY_PASSPHRASE; do
    if [ -n "${!secret:-}" ]; then options+=(--env "$secret"); fi
done
# What the board knows about itself, for profile.
for file in /usr/bin/tegrastats /etc/nv_tegra_release; do
    if [ -e "$file" ]; then options+=(--volume "$file:$file:ro"); fi
done
# Not where the output is read by a program: a terminal would mix stdout and stderr.
if [ -t 0 ] && [ -t 1 ]; then options+=(--interactive --tty); fi
exec "${docker[@]}" run "${options[@]}" "$image" "$command" "$bundle" "$@"
