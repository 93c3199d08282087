#!/usr/bin/env python3
"""Compare models in one table and one picture: results, inputs, cost and speed.

The first one is the baseline, of each family if there are several. Results are those of a
work dir's metrics.json (tools/test.py --out), else of the last validation in its logs. Work dirs of
one config with different seeds are one row: mean and standard deviation, and paired differences
over common seeds. "paper" is what the authors published for the config, if the run is on the same
data. Memory (peak of a forward pass besides the weights, per image) and speeds are measured on this
machine, interleaved. What is missing or fails is a note below the table.
"""
import argparse

from mmfreq.apis.compare.picture import save_comparison
from mmfreq.apis.compare.rows import compare
from mmfreq.apis.compare.table import markdown_table
from mmfreq.apis.terminal import quiet, run_tool
from mmfreq.files import check_writable


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', metavar='RUN_OR_CONFIG', help='work dir of a run, '
                        'or a config file (also mmpretrain::..., mmdet::...)')
    parser.add_argument('-o', '--out', metavar='PREFIX', help='write PREFIX.md, .csv, .json, .png')
    parser.add_argument('--images', type=int, default=64,
                        help='images to time the loading with (default: 64)')
    parser.add_argument('--repeats', type=int, default=5,
                        help='timed rounds, of which the median counts (default: 5)')
    parser.add_argument('--no-timing', action='store_true', help='leave out speeds and memory: '
                        'seconds a model instead of minutes')
    return parser.parse_args()


def main() -> None:
    """Measure, print, write."""
    args = parse_args()
    try:
        for ending in ('md', 'csv', 'json', 'png') if args.out else ():
            check_writable(f'{args.out}.{ending}')
        with quiet():
            rows = compare(args.runs, args.images, args.repeats, timing=not args.no_timing)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    print('\n' + markdown_table(rows))
    if args.out:
        print('written:', *save_comparison(rows, args.out))


if __name__ == '__main__':
    run_tool(main)
