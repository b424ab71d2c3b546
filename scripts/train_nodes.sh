#!/bin/bash
# Training on the machines of a SLURM cluster, a process for each GPU:
#
#   sbatch --nodes=2 --gpus-per-node=4 --ntasks-per-node=4 scripts/train_nodes.sh --config experiments/dual_transfer.yaml \
#       --config experiments/overlays/ddp.yaml
#
# The run folder is runs/EXPERIMENT/slurm-JOB unless --run_dir says another one. Two minutes before the time is over the
# run saves and is queued again; it then goes on in its folder.
#SBATCH --job-name=training
#SBATCH --cpus-per-task=8
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=USR1@120
set -euo pipefail
: "${SLURM_JOB_ID:?is not set: submit this script with sbatch}"
: "${SLURM_NTASKS_PER_NODE:?is not set: give --ntasks-per-node, a task for each GPU of a machine}"
cd "${SLURM_SUBMIT_DIR:-.}"
exec srun "${PYTHON:-python}" cli.py fit "$@" \
    --trainer.num_nodes="${SLURM_NNODES:-1}" --trainer.devices="$SLURM_NTASKS_PER_NODE"
