#!/usr/bin/env bash
# A Ray cluster for the length of one job:  sbatch slurm.sh model.onnx
# With GPUs:  sbatch --gpus-per-node=4 slurm.sh model.onnx
# The environment (VENV: Python, ray, distort) and the home folder must be shared by the nodes.
#SBATCH --job-name=distort
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=00:30:00
set -euo pipefail

model=${1:?usage: sbatch slurm.sh MODEL}
source "${VENV:-$HOME/distort-venv}/bin/activate"
here=${SLURM_SUBMIT_DIR:-$PWD}

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 20000))

gpus=${SLURM_GPUS_ON_NODE:-0} # all of a node's in one Ray node, so that actors see their neighbours'

# jobs of other users share the nodes: whoever wants to join must have the token
ray get-auth-token --generate > /dev/null
export RAY_AUTH_MODE=token
# short: Ray's sockets lie below, and their paths may have 107 characters
temp=/tmp/ray-$SLURM_JOB_ID

srun --nodes=1 --ntasks=1 --overlap --nodelist="$head" \
    ray start --head --block --node-ip-address="$head_ip" --port="$port" --temp-dir="$temp" \
    --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus" --include-dashboard=false --disable-usage-stats &

until (exec 3<> "/dev/tcp/$head_ip/$port") 2> /dev/null; do
    kill -0 $! # the head has ended
    sleep 1
done

others=$((SLURM_JOB_NUM_NODES - 1))
if ((others > 0)); then
    srun --nodes="$others" --ntasks="$others" --overlap --exclude="$head" \
        ray start --block --address="$head_ip:$port" --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus" \
        --disable-usage-stats &
fi

# the driver needs a Ray node on its host: the batch script runs on the first one
python "$here/run_model.py" "$model" --address "$head_ip:$port" \
    --actors "$SLURM_JOB_NUM_NODES" --threads "$SLURM_CPUS_PER_TASK" --gpus "$((gpus * SLURM_JOB_NUM_NODES))"
