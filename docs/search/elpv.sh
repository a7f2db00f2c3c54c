#!/bin/sh
# What a search finds on solar cells with a trunk pretrained on others, against the default, the head alone, and everything at
# once: 3 seeds, with 10 % and with all of what is not for testing. Images stay as they are and one part validates, so that
# features are shared: about an hour on 2 cores.
set -e
cd "$(dirname "$0")/../.."
runs=runs/search-elpv
kresnets=.venv/bin/kresnets
network="--model CifarResNet20 --size 64 --dtype float32"
$kresnets finetune --data elpv/poly --from-scratch $network --weights none --out $runs/source
for limit in 81 806; do
    for seed in 0 1 2; do
        $kresnets search --data elpv/mono --limit $limit $network --batch-size 16 --weights $runs/source --seed $seed \
            --recipe docs/search/unchanged.json --repeats 1 --space docs/search/space.toml --epochs 20 --trials 24 \
            --beside docs/search/head-only.json docs/search/all.json --out $runs/$limit-$seed | tail -8
    done
done
