#!/usr/bin/env bash
# The three stages in order: train/launchers/recipe.sh 7b DATA. DATA holds the sets of all stages (see
# `python -m data_tools check stage1 DATA`); what was done is not done again. SIGTERM is passed on to the stage that
# runs, which saves; no other begins.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
stopped=0
trap 'stopped=1; kill -TERM "$child" 2>/dev/null || true' TERM INT
for stage in 1_image 2_rvos 3_instrack; do
  "$here/node.sh" "$here/../../configs/trackgpt/recipe/$1/$stage.yaml" data.root="$2" "${@:3}" &
  child=$!
  code=0; wait "$child" || code=$?
  # A signal ends the first wait while the stage is still saving.
  if [ "$stopped" -eq 1 ]; then wait "$child" || true; exit 143; fi
  if [ "$code" -ne 0 ]; then exit "$code"; fi
done
