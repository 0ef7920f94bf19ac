#!/usr/bin/env bash
# Every regime of docs/regimes.md: when does closing the gap while training pay? A second call goes on where the first one
# stopped; what has finished is not made again. SEEDS, EPOCHS and STEPS make a smaller study, whose page says so.
#
#     examples/regimes.sh MEDPIX OUT               # MEDPIX: train.jsonl, dev.jsonl, images/, features_train.npz, features_dev.npz
#     REGIMES="frozen phantom-two" SEEDS=2 examples/regimes.sh MEDPIX OUT
set -euo pipefail
medpix=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
cd "$(dirname "$(realpath "$0")")"
regimes=${REGIMES:-frozen growing-frozen phantom-two phantom-three medpix-scratch medpix-finetuned growing-phantom}
for regime in $regimes; do
  python regimes_study.py run "$regime" --medpix "$medpix" --out "$out" --seeds "${SEEDS:-5}" \
    ${EPOCHS:+--epochs "$EPOCHS"} ${STEPS:+--max-steps "$STEPS"} ${PAIRS:+--pairs $PAIRS}
done
python regimes_study.py page --out "$out" --page "$out/regimes.md"
