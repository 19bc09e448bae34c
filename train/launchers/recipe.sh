#!/usr/bin/env bash
# The three stages in order: train/launchers/recipe.sh 7b DATA. DATA holds the sets of all stages (see
# `python -m data_tools check stage1 DATA`); what was done is not done again.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
for stage in 1_image 2_rvos 3_instrack; do
  "$here/node.sh" "$here/../../configs/trackgpt/$1_$stage.yaml" data.root="$2" "${@:3}"
done
