#!/usr/bin/env bash
# Take the measurements of RESULTS.md on a GPU in one call: loading with 1 to 16 workers, transfer, the DCT and unpacking on
# the device against its copy bandwidth, networks, and training with AMP and torch.compile. The results are in
# work_dirs/gpu/. A section that fails does not stop the others.
# Usage: benchmarks/speed/gpu.sh [all | quick]
# Without an argument it is meant to take ten minutes on 16 cores. "all" adds further networks, training in float32, and
# detectors. "quick" checks that everything runs, without a GPU too: small networks, no AMP.
set -u
cd "$(dirname "$0")/../.."
OUT=${OUT:-work_dirs/gpu}
mkdir -p "$OUT"
STOCK=mmpretrain::resnet/resnet50_8xb32_in1k.py
ROWS="configs/resnet/resnet50-dct24s_8xb32_in1k.py configs/resnet/resnet50-dct24s-int8_8xb32_in1k.py
      configs/resnet/resnet50-dct24n_8xb32_in1k.py configs/resnet/resnet50-dct24s-device_8xb32_in1k.py"
DETECTORS="mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py configs/mask_rcnn/mask-rcnn_r50-dct24s_fpn_1x_coco.py
           configs/mask_rcnn/mask-rcnn_r50-dct48s_fpn_1x_coco.py"
LOADED="$STOCK configs/resnet/resnet50-dct24s_8xb32_in1k.py configs/resnet/resnet50-dct24n_8xb32_in1k.py"
load='--repeats 5 --workers 1 2 4 8 16'; run='--batch 64 --repeats 9'
train='--batch 64 --batches 20 --rounds 2 --workers 4 16'; compile='--batch 64 --batches 20 --rounds 2 --workers 16'
if [ "${1:-}" = quick ]; then
    STOCK=configs/demo/resnet18_demo.py; ROWS=configs/demo/resnet18-dct24s_demo.py; LOADED="$STOCK $ROWS"
    load='--repeats 1 --image-count 2 --workers 1 --batches 1'; run='--quick'
    train='--workers 1 --batch 2 --batches 1 --rounds 1'
fi
failed=0
measure() {  # NAME COMMAND...
    local name=$1; shift
    echo "== $name: $*"
    if ! "${PYTHON:-python}" benchmarks/speed/"$@" --out "$OUT/$name" > "$OUT/$name.log" 2>&1; then
        failed=1
        echo "$name failed, see $OUT/$name.log:"
        tail -n 3 "$OUT/$name.log"
    fi
}
measure loaders loaders.py $LOADED $load
measure resnet run.py $STOCK $ROWS --sections preprocessor transfer network amp $run
if [ "${1:-}" = quick ]; then
    measure training training.py $STOCK $ROWS $train
    measure networks networks.py --networks ResNet-18 --size 64 --batch 2 --repeats 1 --channels-last
    exit $failed
fi
measure training-amp training.py $STOCK $ROWS $train --amp
measure training-compiled training.py $STOCK $ROWS $compile --amp --compile
if [ "${1:-}" = all ]; then
    measure training training.py $STOCK $ROWS $train
    measure networks networks.py --networks ResNet-18 ResNet-50 MobileNetV2 --batch 64 --repeats 15 --channels-last --compile
    measure mask-rcnn run.py $DETECTORS --sections network amp --batch 2 --repeats 9
    measure mask-rcnn-training training.py $DETECTORS --workers 4 16 --batch 2 --batches 20 --amp
fi
exit $failed
