#!/usr/bin/env python3
"""Evaluate a checkpoint with the test set and metrics of its config."""
import argparse

import mmfreq
from mmfreq.apis.runs import (
    CHECKPOINT_HELP,
    add_run_arguments,
    build_runner,
    check_output,
    evaluate,
    test_config,
)
from mmfreq.apis.terminal import run_tool, say


def parse_args() -> argparse.Namespace:
    """Read the command line; the flags are those of mmpretrain's and mmdet's tools/test.py."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help=CHECKPOINT_HELP)
    parser.add_argument('--work-dir', help='folder for the log (default: test/ beside the checkpoint)')
    parser.add_argument('-o', '--out', metavar='FILE', help='write the metrics to a .json file, or every '
                        'prediction to a .pkl file')
    parser.add_argument('--show', action='store_true', help='show each prediction in a window')
    parser.add_argument('--show-dir', metavar='DIR',
                        help='save pictures of the predictions, drawn on the images')
    parser.add_argument('--interval', type=int, default=1,
                        help='draw every INTERVAL-th image (default: 1)')
    parser.add_argument('--wait-time', type=float, default=2,
                        help='seconds that a window stays (default: 2)')
    inputs = parser.add_mutually_exclusive_group()
    inputs.add_argument('--channels', metavar='SELECTION', help='evaluate with these channels of the input only, such '
                        'as 12N or a .json file, and with the others at their mean')
    inputs.add_argument('--tta', action='store_true', help='test-time augmentation by the tta_model and '
                        'the tta_pipeline of the config')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    add_run_arguments(parser)
    args = parser.parse_args()
    if args.out:
        check_output(args.out)
    if args.interval < 1:
        parser.error(f'--interval: expected an integer >= 1, got {args.interval}')
    return args


def main() -> None:
    """Build the runner of the config, evaluate, and write the results."""
    args = parse_args()
    mmfreq.setup()
    evaluate(build_runner(test_config(args)), args.out)
    if args.out:
        say(f'wrote {args.out}')


if __name__ == '__main__':
    run_tool(main)
