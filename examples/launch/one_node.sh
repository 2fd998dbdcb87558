#!/usr/bin/env bash
# One machine: as many processes as it has GPUs, or as you say. Usage: one_node.sh TEXT OUT [PROCESSES]
set -euo pipefail
text=$1 out=$2
n=${3:-$(nvidia-smi --list-gpus 2>/dev/null | wc -l)}
n=$((n > 0 ? n : 2))

# The words after `-m` are those for one process. A process that dies is started again with the others, and what is
# finished is kept: shards of the harvest, the last checkpoint of the training.
torchrun --standalone --nproc-per-node "$n" --max-restarts 3 -m lensing \
    harvest --model almanac --text "$text" --sites resid_post.2 --out "$out/acts"

torchrun --standalone --nproc-per-node "$n" --max-restarts 3 -m lensing \
    train batchtopk --store "$out/acts" --width 4096 --k 16 --batch 4096 --out "$out/dictionary"

# Latents that do not fit one machine's memory are split: each pair of processes holds one dictionary, half each.
#   torchrun --standalone --nproc-per-node 4 -m lensing train ... --tp 2
