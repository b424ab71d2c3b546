#!/bin/bash
# A job over very many pictures as an array of a SLURM cluster, a shard for each task:
#
#   sbatch --array=1-16 scripts/job_array.sh caption --ckpt RUN pictures/ --out captions
#
# Options of sbatch (--gres=gpu:1, --time, --mem, --partition) stand before the script. A task that is killed or runs out
# of time is submitted again with the same line: what is written stays.
#SBATCH --job-name=captions
#SBATCH --cpus-per-task=4
#SBATCH --requeue
set -euo pipefail
: "${SLURM_ARRAY_TASK_ID:?is not set: submit this script with sbatch --array=1-N}"
if [ "${SLURM_ARRAY_TASK_MIN:-1}" != 1 ] || [ "${SLURM_ARRAY_TASK_MAX:-$SLURM_ARRAY_TASK_COUNT}" != "$SLURM_ARRAY_TASK_COUNT" ]; then
    # a part of an array: say of how many shards it is
    : "${SHARDS:?is not set: the array is not 1-N, so give the number of shards (SHARDS=16 sbatch --array=3,7 ...)}"
fi
cd "${SLURM_SUBMIT_DIR:-.}"
exec "${PYTHON:-python}" cli.py "$@" --shard "$SLURM_ARRAY_TASK_ID/${SHARDS:-$SLURM_ARRAY_TASK_COUNT}"
