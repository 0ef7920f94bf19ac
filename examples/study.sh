#!/usr/bin/env bash
# Everything that docs/method.md rests on: frozen features, real images from scratch, drawn images with two and with three
# modalities; clip, the published weights and gapless at equal budget. About an hour on two cores; a second call goes on.
#
#     examples/study.sh MEDPIX OUT            # MEDPIX: train.jsonl, dev.jsonl, images/, features_train.npz, features_dev.npz
#     SEEDS=3 PAIRS=1000 EPOCHS=4 examples/study.sh MEDPIX OUT
set -euo pipefail
medpix=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
here=$(dirname "$(realpath "$0")")
seeds=${SEEDS:-5} pairs=${PAIRS:-3000} epochs=${EPOCHS:-}
methods=clip,gapless-published,gapless
quiet="--training.eval_strategy no --training.save_strategy no ${epochs:+--training.num_train_epochs $epochs}"

echo "== frozen features: heads trained on train, measured on dev"
python "$here/recipe_study.py" "$medpix/features_train.npz" "$medpix/train.jsonl" --seeds "$seeds" \
  --test "$medpix/features_dev.npz" "$medpix/dev.jsonl" --arms "clip;gapless-published;gapless;clip, regularised"

echo "== real images, both encoders from scratch"
[ -e "$out/medpix" ] || gapless data table "train=$medpix/train.jsonl" "test=$medpix/dev.jsonl" --image-root "$medpix" \
  --group-key case --label-key location_category --out "$out/medpix"
gapless compare --data "$out/medpix" --recipe table-small --methods $methods --seeds "$seeds" $quiet --out "$out/images"

[ -e "$out/phantom" ] || gapless data phantom --num_pairs "$pairs" --num_validation $((pairs / 30)) \
  --num_test $((pairs * 4 / 15)) --out "$out/phantom"
echo "== drawn images, two modalities"
gapless compare --data "$out/phantom" --recipe phantom-small --methods $methods --seeds "$seeds" $quiet --out "$out/two"
echo "== drawn images, three modalities"
gapless compare --data "$out/phantom" --recipe phantom-three --methods $methods --seeds "$seeds" $quiet --out "$out/three"
gapless report "$out/images" "$out/two" "$out/three" --out "$out/report.html"
