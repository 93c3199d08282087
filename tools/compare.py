#!/usr/bin/env python3
"""Compare models: what they reach, what goes into them and what they cost, in one table and one picture.

The first one is the baseline. Speeds are measured on this machine; the models take turns.
"""
import argparse

from mmfreq.comparison import compare, markdown_table, save_comparison


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', metavar='RUN_OR_CONFIG', help='work dir of a training run (with the '
                        'metrics.json of tools/test.py --out), or a config file')
    parser.add_argument('--out', metavar='PREFIX', help='write PREFIX.md and PREFIX.png')
    parser.add_argument('--images', type=int, default=64, help='images to time the loading with (default: 64)')
    return parser.parse_args()


def main() -> None:
    """Measures, prints, writes."""
    args = parse_args()
    try:
        rows = compare(args.runs, args.images)
    except ValueError as error:
        raise SystemExit(f'compare: {error}') from error
    print('\n' + markdown_table(rows))
    if args.out:
        print('written:', *save_comparison(rows, args.out))


if __name__ == '__main__':
    main()
