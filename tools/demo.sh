#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The main job on the built-in data set: make it, train, evaluate, export. Run again, it reuses all that
# is there. PY is the interpreter; further arguments go to the training, such as --gin_param='EPOCHS = 9'.
set -euo pipefail
cd "$(dirname "$0")/.."
PY=${PY:-.venv/bin/python}
RUN=${RUN:-runs/demo}
OUT=${OUT:-exported/demo}

say() { printf '\n== %s\n' "$*"; }

if [ -f data/glyphs/dataset_spec.json ]; then
    say "data/glyphs is there"
else
    say "making the built-in data set: characters rendered from fonts"
    "$PY" tools/make_glyphs.py --data_dir=data
fi

say "training"
"$PY" -m tf_lwdgh.train --gin_file=gin/glyphs_demo.gin --run_dir="$RUN" "$@"

# What was made of the present best checkpoint is not made again.
best=$(ls -d "$RUN"/best/step-* | tail -n 1)/manifest.json
if [ "$RUN/evaluation.txt" -nt "$best" ]; then
    say "evaluated before"
    cat "$RUN/evaluation.txt"
else
    say "evaluating on characters of scripts that training has never seen"
    "$PY" -m tf_lwdgh.evaluate --run_dir="$RUN" > "$RUN/evaluation.new"
    mv "$RUN/evaluation.new" "$RUN/evaluation.txt"
    cat "$RUN/evaluation.txt"
fi

if [ "$OUT/saved_model.pb" -nt "$best" ]; then
    say "exported before, to $OUT"
else
    say "exporting a SavedModel that learns new characters by itself"
    "$PY" -m tf_lwdgh.export --run_dir="$RUN" --output="$OUT" --overwrite
fi

say "TensorBoard:  $(dirname "$PY")/tensorboard --logdir=$(dirname "$RUN")"
