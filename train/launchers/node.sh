#!/usr/bin/env bash
# Train on one machine: train/launchers/node.sh CONFIG [key=value ...]. GPUS says how many (default: all there are).
# With one GPU or none this is `python -m train CONFIG`; a run that was stopped goes on.
# A run that is told to end (SIGTERM) finishes its step and saves. torchrun kills after 30 s what has not left, which a
# step is done in but a validation is not, so it is given four minutes.
set -euo pipefail
if [ -z "${GPUS:-}" ]; then GPUS=$(python -c 'import torch; print(torch.cuda.device_count())'); fi
if [ "$GPUS" -le 1 ]; then exec python -m train "$@" plan.zero="${ZERO:-0}"; fi
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-240}"
exec torchrun --standalone --nproc_per_node "$GPUS" -m train "$@"
