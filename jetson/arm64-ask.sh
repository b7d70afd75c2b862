#!/bin/sh
# Asks the questions of arm64-check: the same script on both sides.
#
#     arm64-ask.sh HIRED_EDGE QUESTIONS FOLDER
#
# QUESTIONS has lines of name, bundle, picture, budget and prompt, between tabs; each answer goes to FOLDER/name.json.
set -eu
hired_edge=$1 folder=$3
while IFS='	' read -r name bundle picture budget prompt; do
    "$hired_edge" run "$bundle" --image "$picture" --visual-tokens "$budget" --prompt "$prompt" --json \
        >"$folder/$name.json" </dev/null
done <"$2"
