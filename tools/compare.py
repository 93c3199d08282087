#!/usr/bin/env python3
"""Compare models: what they reach, what goes into them and what they cost, in one table and one picture.

The first one is the baseline, of each task and family if there are several. Of a work dir, the best result counts,
of its logs and of its metrics.json; "paper" is what the authors published for the config. Memory (peak of a forward
pass besides the weights, per image) and speeds are measured on this machine; the models take turns. What is missing,
damaged or cannot be built stays in the table, with a note.
"""
import argparse

from mmfreq.apis.compare.measure import compare
from mmfreq.apis.compare.table import markdown_table, save_comparison


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', metavar='RUN_OR_CONFIG', help='work dir of a training run, '
                        'or a config file (also mmpretrain::..., mmdet::...)')
    parser.add_argument('--out', metavar='PREFIX', help='write PREFIX.md, .csv, .json, .png')
    parser.add_argument('--images', type=int, default=64, help='images to time the loading with (default: 64)')
    parser.add_argument('--repeats', type=int, default=5, help='timed rounds, of which the median counts (default: 5)')
    parser.add_argument('--no-timing', action='store_true', help='leave out speeds and memory: seconds a model instead '
                        'of minutes')
    return parser.parse_args()


def main() -> None:
    """Measures, prints, writes."""
    args = parse_args()
    try:
        rows = compare(args.runs, args.images, args.repeats, timing=not args.no_timing)
    except ValueError as error:
        raise SystemExit(f'compare: {error}') from error
    print('\n' + markdown_table(rows))
    if args.out:
        print('written:', *save_comparison(rows, args.out))


if __name__ == '__main__':
    main()
