# What the scripts of the models end with; sourced by them. `finish NAME PROMPTS IMAGES`: the run runs/NAME is asked how it
# draws best, scored, packed as src/calotype/models/NAME, and its scores are printed. What was measured stays measured.

finish() {
  local run=runs/$1

  # How it draws best is chosen by measure, once.
  if [ ! -f "$run/swept" ]; then
    "$PYTHON" -m calotype evaluate "$run" --sweep --settings 12 --seed "$SEED"
    touch "$run/swept"
  fi

  # Captions of training, and as many as were held out; so many pictures of each.
  if [ ! "$run/evaluation.json" -nt "$run/swept" ]; then
    "$PYTHON" -m calotype evaluate "$run" --prompts "$2" -n "$3" --seed "$SEED"
  fi

  "$PYTHON" runs/pack.py "$run" "$1"
}
