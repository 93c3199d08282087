"""Write the demo data, cut from the photographs inside the scikit-image wheel (no download)."""

from __future__ import annotations

import argparse

from mmfreq.demo_data import TASKS, make_demo_data


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--task', choices=sorted(TASKS), default='classification')
    parser.add_argument('--out', default='data/demo', help='folder to make (default: %(default)s)')
    parser.add_argument('--train-per-class', type=int, default=100, help='default: %(default)s')
    parser.add_argument('--val-per-class', type=int, default=30, help='default: %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument(
        '--force',
        action='store_true',
        help='make OUT anew if this tool made it; a folder of other origin is never replaced',
    )
    return parser.parse_args()


def main() -> None:
    """Makes the data, or says why not."""
    try:
        make_demo_data(**vars(parse_args()))
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(f'make_demo_data: {error}') from None


if __name__ == '__main__':
    main()
