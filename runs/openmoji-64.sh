#!/usr/bin/env bash
# openmoji-64 from nothing: words to emoji of 64 pixels. The same command continues where it was stopped.
#
# First   pip install -c constraints.txt -e '.[demo,eval]'      (Python 3.11; every version is in constraints.txt)
#         mkdir -p runs/packages && (cd runs/packages && npm pack @iconify-json/noto@1.2.9 @iconify-json/twemoji@1.2.5 \
#           @iconify-json/fluent-emoji@1.2.7 @iconify-json/fluent-emoji-flat@1.2.6 @iconify-json/emojione@1.2.3)
# Then    runs/openmoji-64.sh
#
# It makes runs/emoji-styles (10,143 pictures) and runs/openmoji-64, packs src/calotype/models/openmoji-64, and prints
# what its card says of its scores. On the same machine with as many threads every number comes out the same.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_WAIT_POLICY=passive # threads that wait without spinning

PYTHON=${PYTHON:-.venv/bin/python}
PACKAGES=${PACKAGES:-runs/packages}
RUN=runs/openmoji-64
SEED=0
VAE_STEPS=12000
STEPS=60000

"$PYTHON" runs/emoji_styles.py "$PACKAGES" runs/emoji-styles --size 64

"$PYTHON" -m calotype train runs/emoji-styles --out "$RUN" --size 64 --seed "$SEED" --steps "$STEPS" \
  --set vae.from=scratch --set vae.steps="$VAE_STEPS"

# How it draws best is chosen by measure, once.
if [ ! -f "$RUN/swept" ]; then
  "$PYTHON" -m calotype evaluate "$RUN" --sweep --seed "$SEED"
  touch "$RUN/swept"
fi

# 192 captions of training and all that were held out, four pictures of each, beside OpenMoji's pictures.
SCORES=$RUN/evaluation-openmoji.json
if [ ! "$SCORES" -nt "$RUN/model/manifest.json" ]; then
  "$PYTHON" -m calotype evaluate "$RUN" --data openmoji --prompts 192 -n 4 --seed "$SEED" --out "$SCORES"
fi

"$PYTHON" runs/pack.py "$RUN" openmoji-64 --scores "$SCORES"
