#!/bin/sh
# What keeping augmented copies costs, and what unfreezing by plateau saves: the table of docs/images.md, 3 seeds, about 30 minutes.
set -e
cd "$(dirname "$0")/.."
runs=runs/elpv
kresnets=.venv/bin/kresnets
network="--model CifarResNet20 --size 64 --dtype float32"
$kresnets finetune --data elpv/poly --from-scratch $network --weights none --out $runs/source
for seed in 0 1 2; do
    train() {
        name=$1
        shift
        $kresnets finetune --data elpv/mono --limit 250 $network --batch-size 16 --weights $runs/source \
            --learning-rate 1e-2 --trunk-learning-rate 3e-3 --ratio 1 --head-epochs 10 --epochs-per-stage 20 \
            --seed $seed "$@" --out $runs/$name-$seed >$runs/$name-$seed.log
        echo "$name, seed $seed: $(($(wc -l <$runs/$name-$seed/history.csv) - 1)) epochs," \
            "$(grep -o '"\(accuracy\|auc\)": [0-9.]*' $runs/$name-$seed/metrics.json | tr '\n' ' ')"
    }
    train drawn --stages stage3 --augment light
    train unchanged --stages stage3 --augment none
    train views4 --stages stage3 --augment light --views 4
    train views8 --stages stage3 --augment light --views 8
    train fixed --stages stage3 stem --augment light
    train plateau --stages stage3 stem --augment light --advance plateau --patience 2 --max-epochs-per-stage 20
done
