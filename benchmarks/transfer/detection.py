#!/usr/bin/env python3
"""Fine-tune detectors on photos of balloons, on RGB and on 24 native channels.

Their backbones start from RGB networks that were trained on Imagenette: the ResNets of the accuracy study
(benchmarks/accuracy/run.py --rows native-rgb) and CSPNeXts, which are trained here. mmfreq freqify makes the config of
the channels, which loads the same RGB weights.

A finished training writes results/detection/ROW-seedN.json and is not repeated: to train its network again, delete that
file. An interrupted one continues from its last checkpoint. Then run summarize.py.
"""
import argparse
from pathlib import Path

import torch
from finetune import HERE, RESULTS, Row, finish, write_result

import mmfreq
from mmfreq.apis.freqify.convert import write_freqified
from mmfreq.apis.runs import build_runner, train_config

OUT = RESULTS / 'detection'
BACKBONES = {'faster-rcnn': Row('resnet', '', 10), 'rtmdet': Row('cspnext', '', 10, 'scratch')}
INPUTS = {'rgb': '', '24n': '24N', '12n': '12N'}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--detectors', nargs='+', choices=BACKBONES, default=list(BACKBONES), help='default: all')
    parser.add_argument('--inputs', nargs='+', choices=INPUTS, default=['rgb', '24n'],
                        help='default: rgb 24n')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], help='seeds (default: 0 1 2)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/transfer'), help='logs and checkpoints')
    return parser.parse_args()


def main() -> None:
    """Train the missing rows, seed by seed."""
    args = parse_args()
    mmfreq.setup()
    for seed in args.seeds:
        for detector in args.detectors:
            if BACKBONES[detector].start == 'scratch':
                finish(BACKBONES[detector], seed, args.work_dir)
            for name in args.inputs:
                train(detector, name, seed, args.work_dir)


def backbone(detector: str, seed: int, work_dir: Path) -> Path:
    """Return the RGB network whose backbone the detector starts from."""
    row = BACKBONES[detector]
    return row.checkpoint(work_dir, seed) if row.start == 'stock' else work_dir / f'{row.name}-seed{seed}/epoch_10.pth'


def train(detector: str, name: str, seed: int, work_dir: Path) -> None:
    """Train one detector on one input and write its metrics, unless they exist."""
    target = OUT / f'{detector}-{name}-seed{seed}.json'
    if target.is_file():
        return
    config = HERE / f'configs/{detector}.py'
    if INPUTS[name]:
        out = work_dir / f'configs/{detector}-{name}.py'
        out.parent.mkdir(parents=True, exist_ok=True)
        write_freqified(str(config), INPUTS[name], out, None)
        config = out
    checkpoint = backbone(detector, seed, work_dir).resolve()
    if not checkpoint.is_file():
        print(f'{detector} on {name}, seed {seed}: skipped, because there is no {checkpoint}', flush=True)
        return
    options = {'randomness.seed': seed, 'model.backbone.init_cfg.checkpoint': str(checkpoint)}
    arguments = dict(config=str(config), work_dir=str(work_dir / f'{detector}-{name}-seed{seed}'), resume='auto',
                     no_validate=False, amp=False, auto_scale_lr=False, verbose=False, launcher='none', local_rank=0,
                     cfg_options=options)
    torch.manual_seed(seed)
    runner = build_runner(train_config(argparse.Namespace(**arguments)))
    runner.train()
    if 'val/coco/bbox_mAP' not in runner.message_hub.log_scalars:  # the last validation was interrupted
        runner.val()
    metrics = {f'coco/{key}': float(runner.message_hub.get_scalar(f'val/coco/{key}').current())
               for key in ('bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_75')}
    write_result(target, row=f'{detector}-{name}', seed=seed, metrics=metrics)
    print(f'{detector} on {name}, seed {seed}: {metrics}', flush=True)


if __name__ == '__main__':
    main()
