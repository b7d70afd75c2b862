#!/usr/bin/env bash
# Proves install.sh and the runtime on arm64: in a Debian userland under qemu, on a machine without a board.
#
#     jetson/arm64-check.sh              # make arm64-check; a quarter of an hour to half an hour
#
# The wheel of this tree and its aarch64 dependencies are fetched here and installed there, without a network, by
# install.sh itself; tests/device runs there as an ordinary user; the committed bundles are asked the same questions
# there and here. Once all of that has been done, its result goes to docs/arm64.md; exit status 1 if it is bad.
#
# Needs debootstrap and qemu-user-static, root or sudo, and .venv-dev (make test makes it). What is kept between runs is
# below build/arm64: the pristine userland as an archive, and the log.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=${here%/*}
cd "$root"
work=$root/build/arm64
python=$root/.venv-dev/bin/python
# On two cores that had little else to do the tests took half an hour.
test_limit=10800
test_packages=(pytest pytest-xdist hypothesis matplotlib)
# What qemu itself spoils: a limit of 0.3 s, a recording that has to be replayed at its speed, and the message of a program
# that crashes, to which it adds its own. And a thousand answers of the demonstration model, which take it an hour: they
# judge the model, whose tokens are compared below.
not_run='test_demo_accuracy or test_help_is_immediate or test_power_of_a_recorded_board or (crashes and SIGSEGV)'

# shellcheck source=arm64-userland.sh
. "$here/arm64-userland.sh"
need_userland_tools
[ -x "$python" ] || fail "no $python; expected the development environment; run: make test"

say() { printf 'arm64-check: %s\n' "$*" >&2; }
fact() { printf '%s\t%s\n' "$1" "$2" >>"$work/facts"; }
timed() { # timed NAME COMMAND...: notes the seconds, and passes the exit status on
    local name=$1 start=$SECONDS status=0
    shift
    "$@" || status=$?
    fact "seconds: $name" $((SECONDS - start))
    return "$status"
}

mkdir -p "$work"
scratch=$(mktemp -d "$work/run.XXXXXX")
userland=$scratch/userland
# What belongs to root in there was written by root in there.
clean_up() {
    forget_qemu
    as_root rm -rf --one-file-system "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
: >"$work/facts"
rm -rf "$work/answers" && mkdir -p "$work/answers/here"

register_qemu
if [ -e "$work/userland.tar" ]; then
    fact "userland" "kept from an earlier run"
else
    say "debootstrap of $suite for arm64 (five to ten minutes)"
    timed debootstrap make_userland "$work/userland.tar" "$scratch"
fi
mkdir "$userland"
as_root tar --numeric-owner -C "$userland" -xf "$work/userland.tar"

say "fetching aarch64 wheels: for this userland, and for the Pythons of JetPack 6 and 7"
for system in debian12 jp6 jp7; do
    also=()
    if [ "$system" = debian12 ]; then also=(--also "${test_packages[@]}"); fi
    timed "wheels for $system" "$python" -m jetson.wheels "$system" --out "$scratch/wheels/$system" "${also[@]}" >&2
done

say "copying tests, bundles and questions"
mkdir "$scratch/tree"
"$python" -c 'import sys; from pathlib import Path; from tests.host.environments import copy_device_tests
copy_device_tests(Path(sys.argv[1]))' "$scratch/tree"
"$python" -m jetson.arm64_report questions --picture "$scratch/tree/scene.jpg" >"$scratch/tree/questions.tsv"
cp "$here/install.sh" "$here/arm64-ask.sh" "$scratch/tree"
mkdir "$scratch/tree/answers"
as_root mkdir "$userland/work"
as_root cp -r "$scratch/tree" "$scratch/wheels/debian12" "$userland/work"
as_root chown -R 1000:1000 "$userland/work"
inside_tree() { inside "$userland" "$1" /bin/sh -c 'cd /work/tree && exec "$@"' sh "${@:2}"; }

say "install.sh inside, without a network"
timed install inside_tree 0 bash install.sh --wheels /work/debian12 --cuda 13 /opt/hired-edge >&2
megabytes() {
    as_root find "$userland/opt/hired-edge" "$@" -printf '%s\n' | awk '{ sum += $1 } END { printf "%.0f\n", sum / 1e6 }'
}
fact "installed MB" "$(megabytes -type f)"
fact "bytecode MB" "$(megabytes -name '*.pyc')"
inside_tree 1000 /opt/hired-edge/bin/python -m pip freeze --local --disable-pip-version-check >"$work/packages"
fact "Debian" "$(cat "$userland/etc/debian_version")"
fact "machine inside" "$(inside_tree 1000 uname -m)"
fact "Python inside" "$(inside_tree 1000 /opt/hired-edge/bin/python --version)"
# As JetPack's tensorrt: a compiled module that apt installed. And jinja2, of which apt's is too old.
inside_tree 1000 /opt/hired-edge/bin/python -c '
import jinja2, yaml
print("apt yaml", yaml.__file__, yaml.__with_libyaml__)
print("own jinja2", jinja2.__file__, jinja2.__version__)' >"$work/modules"

say "tests/device inside, as an ordinary user"
inside_tree 0 /opt/hired-edge/bin/python -m pip install --quiet --no-index --find-links /work/debian12 \
    "${test_packages[@]}"
tests=(env PATH=/opt/hired-edge/bin:/usr/bin:/bin OMP_NUM_THREADS=1 timeout "$test_limit"
    /opt/hired-edge/bin/python -m pytest -q -p no:cacheprovider -n "$(nproc)" --dist worksteal
    --junitxml /work/junit.xml -k "not ($not_run)")
fact "not run" "$not_run"
tests_status=0
timed tests inside_tree 1000 "${tests[@]}" tests/device >&2 || tests_status=$?
fact "pytest's exit status" "$tests_status"
[ ! -e "$userland/work/junit.xml" ] || cp "$userland/work/junit.xml" "$work/junit.xml"

say "questions, inside and here"
timed "questions inside" inside_tree 1000 sh arm64-ask.sh /opt/hired-edge/bin/hired-edge questions.tsv answers
ask_here() (cd "$scratch/tree" && sh arm64-ask.sh "$root/.venv-dev/bin/hired-edge" questions.tsv "$work/answers/here")
timed "questions here" ask_here
cp -r "$userland/work/tree/answers" "$work/answers/inside"
cp "$scratch/tree/questions.tsv" "$work/questions.tsv"

fact "qemu" "$(qemu-aarch64-static --version | sed -n '1s/.*version //p')"
fact "machine here" "$(uname -m)"
fact "cores here" "$(nproc)"
"$python" -m jetson.arm64_report write --work "$work" --wheels "$scratch/wheels" --out "$root/docs/arm64.md"
