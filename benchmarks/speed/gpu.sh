#!/usr/bin/env bash
# Take the measurements of RESULTS.md on a GPU in one call: networks, AMP, the DCT on the device, transfer, and training
# with 1 to 16 workers. The results are in work_dirs/gpu/. A section that fails does not stop the others.
# Usage: benchmarks/speed/gpu.sh [quick]
# "quick" checks that everything runs, without a GPU too: small networks, no AMP, no detectors.
set -u
cd "$(dirname "$0")/../.."
OUT=${OUT:-work_dirs/gpu}
mkdir -p "$OUT"
STOCK=mmpretrain::resnet/resnet50_8xb32_in1k.py
ROWS="configs/resnet/resnet50-dct24s_8xb32_in1k.py configs/resnet/resnet50-dct24s-int8_8xb32_in1k.py
      configs/resnet/resnet50-dct48s-int8_8xb32_in1k.py configs/resnet/resnet50-dct24s-device_8xb32_in1k.py"
DETECTORS="mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py configs/mask_rcnn/mask-rcnn_r50-dct24s_fpn_1x_coco.py
           configs/mask_rcnn/mask-rcnn_r50-dct48s_fpn_1x_coco.py"
networks='ResNet-18 ResNet-50 MobileNetV2 --batch 64 --repeats 15 --channels-last --compile'
run='--batch 64 --repeats 15'; detect='--batch 2 --repeats 9'; train='--batch 64 --batches 20'
if [ "${1:-}" = quick ]; then
    STOCK=configs/demo/resnet18_demo.py; ROWS=configs/demo/resnet18-dct24s_demo.py
    networks='ResNet-18 --size 64 --batch 2 --repeats 1 --channels-last'
    run='--quick'; train='--workers 1 --batch 2 --batches 1 --rounds 1'
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
measure networks networks.py --networks $networks
measure resnet run.py $STOCK $ROWS --sections preprocessor transfer network amp $run
measure training training.py $STOCK $ROWS $train
if [ "${1:-}" != quick ]; then
    measure training-amp training.py $STOCK $ROWS $train --amp
    measure mask-rcnn run.py $DETECTORS --sections network amp $detect
    measure mask-rcnn-training training.py $DETECTORS --workers 4 16 --batch 2 --batches 20 --amp
fi
exit $failed
