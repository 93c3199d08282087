#!/usr/bin/env python3
"""Compare models in one table and one picture: results, inputs, costs and speeds.

The first model is the baseline; so is the first one of each other family of networks. Results of a
work dir are those of the newest test in WORK_DIR/test, where mmfreq test leaves its log, else of the
last validation; the table says which. Work dirs of one
config with different seeds are one row: mean and standard deviation, and paired differences over
common seeds. Published results are the authors'. Memory (the peak of a forward pass besides the
weights) and speeds are measured on this machine; the models take turns.
"""
import argparse

import mmfreq
from mmfreq.apis.compare.output import markdown_table, save_comparison
from mmfreq.apis.compare.rows import compare
from mmfreq.apis.terminal import run_tool
from mmfreq.files import check_writable


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', metavar='RUN_OR_CONFIG', help='work dir of a run, '
                        'or a config file (also mmpretrain::..., mmdet::...)')
    parser.add_argument('-o', '--out', metavar='PREFIX', default='comparison',
                        help='write PREFIX.md, .json and .png (default: %(default)s)')
    parser.add_argument('--images', type=int, default=64,
                        help='images to time the loading with (default: %(default)s)')
    parser.add_argument('--repeats', type=int, default=5,
                        help='timed rounds, of which the median counts (default: %(default)s)')
    parser.add_argument('--no-timing', action='store_true', help='leave out speeds and memory: '
                        'seconds a model instead of minutes')
    return parser.parse_args()


def main() -> None:
    """Measure, print, write."""
    args = parse_args()
    mmfreq.setup()
    check_writable(f'{args.out}.md')
    rows = compare(args.runs, 0 if args.no_timing else args.images, args.repeats)
    print('\n' + markdown_table(rows))
    print('written:', *save_comparison(rows, args.out))


if __name__ == '__main__':
    run_tool(main)
