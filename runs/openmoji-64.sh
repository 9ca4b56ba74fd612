#!/usr/bin/env bash
# openmoji-64 from nothing: words to emoji of 64 pixels. The same command continues where it was stopped.
#
# First   pip install -c constraints.txt -e '.[demo,eval]'      (Python 3.11; every version is in constraints.txt)
# Then    runs/openmoji-64.sh
#
# It makes runs/openmoji-64, packs src/calotype/models/openmoji-64, and prints what its card says of its scores. On a like
# machine every number comes out the same.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 # one core; another one can make landscapes-128 meanwhile

source runs/finish.bash

PYTHON=${PYTHON:-.venv/bin/python}
SEED=0
VAE_STEPS=12000
STEPS=4500

"$PYTHON" -m calotype train openmoji --out runs/openmoji-64 --size 64 --seed "$SEED" --steps "$STEPS" \
  --set vae.steps="$VAE_STEPS" --set 'vae.network.channels=[64,128]' \
  --set loss.density=uniform --set training.optimizer.lr=4e-3 --set training.ema_halflife=22000 \
  --set vae.loss.adversarial_weight=0 --set vae.training.validate_every=1000

finish openmoji-64 192 4
