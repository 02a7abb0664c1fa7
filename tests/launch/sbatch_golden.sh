#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --array=0-3%3
#SBATCH --begin=now+10minutes
#SBATCH --constraint='a100|h100'
#SBATCH --cpus-per-task=8
#SBATCH --dependency=singleton
#SBATCH --exclude='n[3-4]'
#SBATCH --gpus-per-node=4
#SBATCH --job-name=table1
#SBATCH --mail-type=FAIL
#SBATCH --mem=246272M
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=members/%a/log/host-%A_%a.out
#SBATCH --partition=gpu
#SBATCH --qos=high
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
#SBATCH --time=720

# setup
set -u
export XR2CT_LEAD_S="300"
export XR2CT_HUNG_S="900"
export XR2CT_REQUIRE_GPU="1"
export XR2CT_STAGE="$TMPDIR"
export CUDA_CACHE_PATH="/scratch/$USER/cuda"
export MPLCONFIGDIR="/scratch/$USER/matplotlib"
export NUMBA_CACHE_DIR="/scratch/$USER/numba"
export TORCHINDUCTOR_CACHE_DIR="/scratch/$USER/inductor"
export TORCH_EXTENSIONS_DIR="/scratch/$USER/torch-extensions"
export TORCH_HOME="/scratch/$USER/torch"
export TRITON_CACHE_DIR="/scratch/$USER/triton"
export XDG_CACHE_HOME="/scratch/$USER/cache"
export NCCL_SOCKET_IFNAME="ib0"
export CACHE="$HOME/it's \"mine\""
set +u
command -v module >/dev/null || . /etc/profile
module load cuda/13.0 || { echo 'the module of profile key modules cannot be loaded' >&2; exit 2; }
ulimit -n 65536

# command
export SUBMITIT_EXECUTOR=slurm
exec bash job.sh --requeue -- /opt/venv/bin/python -u -m submitit.core._submit
