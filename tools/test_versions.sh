#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tries the package, installed as a wheel in fresh environments, with the lowest and the highest versions
# that tf_lwdgh/versions.py allows: makes data, trains 2 steps, evaluates, exports, predicts, examines.
#   bash tools/test_versions.sh            both
#   bash tools/test_versions.sh lowest     one of them
# PYTHON is the interpreter (for the lowest one of 3.10 to 3.12, to which those versions reach back). Each
# environment takes about 2.5 GB of disk and some minutes, and is removed afterwards; WORK is where.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
PYTHON=${PYTHON:-python3}
work=$(mktemp -d "${WORK:-${TMPDIR:-/tmp}}/versions.XXXXXX")
trap 'rm -rf "$work"' EXIT
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3} PYTHONNOUSERSITE=1
unset PYTHONPATH

mkdir "$work/source"
cp -r "$root"/{tf_lwdgh,gin,setup.py,setup.cfg,pyproject.toml,requirements.txt,README.md,LICENSE,MANIFEST.in} "$work/source"
"$PYTHON" -m pip wheel --quiet --no-deps --wheel-dir "$work" "$work/source"
wheel=$(echo "$work"/tf_lwdgh-*.whl)

"$PYTHON" - "$root/tf_lwdgh/versions.py" > "$work/lowest.txt" <<'PY'
import runpy, sys
for name, taken in runpy.run_path(sys.argv[1])["RANGES"].items():
    print(taken.split(",")[0].replace(">=", f"{name}=="))
PY

try() {
    local which=$1 bin="$work/$1/bin"
    "$PYTHON" -m venv "$work/$which"
    "$bin/python" -m pip install --quiet --upgrade pip
    if [ "$which" = lowest ]; then
        "$bin/python" -m pip install --quiet --constraint "$work/lowest.txt" "$wheel"
    else
        "$bin/python" -m pip install --quiet --upgrade --upgrade-strategy eager "$wheel"
    fi
    mkdir "$work/$which/home"
    cd "$work/$which/home"
    "$bin/tf-lwdgh" doctor --environment | sed 's/^/    /'
    "$bin/tf-lwdgh" list experiments > /dev/null
    "$bin/tf-lwdgh" convert glyphs --data_dir=data
    "$bin/tf-lwdgh" train --gin_file=glyphs --gin_file=sizes/tiny --run_dir=run \
        --gin_param='STEPS_PER_EPOCH = 2' --gin_param='VAL_TASKS = 2'
    "$bin/tf-lwdgh" evaluate --run_dir=run --gin_param='Evaluation.n_tasks = 3' --noas_served
    "$bin/tf-lwdgh" export --run_dir=run --output=exported > /dev/null
    "$bin/tf-lwdgh" doctor --run_dir=run --model=exported
    "$bin/python" - <<'PY'
import numpy as np
import tf_lwdgh as fs

images = np.random.default_rng(0).integers(0, 256, (12, 28, 28, 3), np.uint8)
labels = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
ours = fs.load_run("run").adapt(images[:10], labels).predict(images[10:])
model = fs.load_exported("exported")
exported = model.adapt_and_predict(images[:10], labels, images[10:])
np.testing.assert_allclose(ours["probabilities"], exported["probabilities"], atol=1e-5)
print("predicts", exported["labels"].tolist())
PY
    cd "$work"
    rm -rf "${work:?}/$which"
    echo "$which: works"
}

for which in "${@:-lowest highest}"; do
    for one in $which; do try "$one"; done
done
