#!/usr/bin/env bash
# Train with several processes on one machine, one per GPU (or on the CPU with gloo, if there is no GPU).
#   usage: tools/dist_train.sh CONFIG PROCESSES [arguments of tools/train.py]
#   environment: NNODES, NODE_RANK, MASTER_ADDR, PORT as in mmpretrain; PYTHON
set -euo pipefail
if [ $# -lt 2 ]; then sed -n 's/^# \{0,1\}//p' "$0" | tail -n +2; exit 2; fi
config=$1 processes=$2; shift 2
if [[ $config == *.py && $config != *::* && ! -f $config ]]; then echo "$(basename "$0"): error: config: no such file: $config" >&2; exit 2; fi
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" --nproc_per_node="$processes" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
