#!/usr/bin/env bash
# vae-f8 from nothing: the autoencoder that trainings of your own pictures start from. The same command continues where it
# was stopped.
#
# First   pip install -c constraints.txt -e '.[demo]'           (Python 3.11; every version is in constraints.txt)
#         mkdir -p runs/packages && (cd runs/packages && npm pack @iconify-json/noto@1.2.9 @iconify-json/twemoji@1.2.5 \
#           @iconify-json/fluent-emoji@1.2.7 @iconify-json/fluent-emoji-flat@1.2.6 @iconify-json/emojione@1.2.3)
# Then    runs/vae-f8.sh DATA.tar                               (the photographs of runs/landscapes-128.sh, as a tar)
#
# It makes runs/emoji-styles, runs/vae-pictures (40,143 pictures) and runs/vae-f8, packs src/calotype/models/vae-f8, and
# prints what its card says. On the same machine with as many threads every number comes out the same.
set -euo pipefail
if [ $# -ne 1 ] || [ ! -f "$1" ]; then
  echo "runs/vae-f8.sh DATA.tar: the first lines of runs/landscapes-128.sh say what must be in it" >&2
  exit 2
fi
DATA=$(realpath "$1")
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1

PYTHON=${PYTHON:-.venv/bin/python}
PACKAGES=${PACKAGES:-runs/packages}
RUN=runs/vae-f8
SEED=0
VAE_STEPS=12720

"$PYTHON" runs/emoji_styles.py "$PACKAGES" runs/emoji-styles --size 64
"$PYTHON" runs/vae_pictures.py runs/emoji-styles "$DATA" runs/vae-pictures

# A run without its autoencoder is nothing, so it gets a denoiser of one step, which is not packed.
"$PYTHON" -m calotype train runs/vae-pictures --out "$RUN" --size 64 --seed "$SEED" --steps 1 --set condition=none \
  --set vae.from=scratch --set vae.steps="$VAE_STEPS" --set vae.training.ema_halflife=4000

"$PYTHON" runs/pack.py "$RUN" vae-f8 --autoencoder
