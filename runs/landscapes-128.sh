#!/usr/bin/env bash
# landscapes-128 from nothing: words and a class to photographs of 128 pixels. The same command continues where it was
# stopped.
#
# First   pip install -c constraints.txt -e '.[eval]'           (Python 3.11; every version is in constraints.txt)
# Then    runs/landscapes-128.sh DATA.tar
#
# DATA.tar is yours: the photographs are not part of calotype, see runs/landscapes-128.md. Of the public set "Intel Image
# Classification" it holds those of forest, glacier, mountain and sea, as JPEG files of 128 pixels or more, and beside
# them metadata.jsonl with a line for each:
#     {"file_name": "7.jpg", "text": "a photo of the sea, at sunset", "label": "sea"}
# A folder of that kind does as well. Without metadata.jsonl, a folder for each class gives a model asked by class alone.
#
# It makes runs/landscapes-128, packs src/calotype/models/landscapes-128, and prints what its card says of its scores. On
# a like machine, and from the same pictures, every number comes out the same.
set -euo pipefail
if [ $# -ne 1 ] || [ ! -e "$1" ]; then
  echo "runs/landscapes-128.sh DATA.tar: the first lines of this script say what must be in it" >&2
  exit 2
fi
DATA=$(realpath "$1")
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 # one core; another one can make openmoji-64 meanwhile

source runs/finish.bash

PYTHON=${PYTHON:-.venv/bin/python}
SEED=0
VAE_STEPS=5000
STEPS=5200

"$PYTHON" -m calotype train "$DATA" --out runs/landscapes-128 --size 128 --seed "$SEED" --steps "$STEPS" \
  --set vae.steps="$VAE_STEPS" --set 'vae.network.channels=[64,128]' --set loss.rewording=0 \
  --set loss.density=uniform --set training.optimizer.lr=4e-3 --set training.ema_halflife=22000 \
  --set vae.loss.adversarial_weight=0 --set vae.training.validate_every=1000

finish landscapes-128 512 2
