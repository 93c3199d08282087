"""Write the demo data, made from the photographs inside the scikit-image wheel (no download)."""

from __future__ import annotations

import argparse
from typing import Any

from mmfreq.demo_data import TASKS, make_demo_data

OUT = {'classification': 'data/demo', 'detection': 'data/demo_detection'}
HELP = {
    'train_per_class': 'train crops of each photograph',
    'val_per_class': 'val crops of each photograph',
    'train_images': 'train pictures',
    'val_images': 'val pictures',
}


def parse_args() -> dict[str, Any]:
    """Reads the command line; options that were not given are absent, but for the task and the folder."""
    parser = argparse.ArgumentParser(description=__doc__, argument_default=argparse.SUPPRESS)
    parser.add_argument(
        '--task',
        choices=sorted(TASKS),
        default='classification',
        help='classification: crops, whose class is their photograph; detection: a COCO set of boxes, discs and stars '
        'on photographs, with masks (default: %(default)s)',
    )
    folders = ', '.join(f'{folder} for {task}' for task, folder in OUT.items())
    parser.add_argument('--out', help=f'folder to make (default: {folders})')
    parser.add_argument('--seed', type=int, help='any integer; another one gives other pictures (default: 0)')
    parser.add_argument(
        '--force',
        action='store_true',
        help='make OUT anew if this tool made it; a folder of other origin is never replaced',
    )
    for name, task in TASKS.items():
        group = parser.add_argument_group(f'only with --task {name}')
        for option, count in task.counts.items():
            flag = f'--{option.replace("_", "-")}'
            group.add_argument(flag, type=int, metavar='N', help=f'{HELP[option]} (default: {count})')
    args = vars(parser.parse_args())
    return {'out': OUT[args['task']], **args}


def main() -> None:
    """Makes the data, or says why not."""
    try:
        make_demo_data(**parse_args())
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(f'make_demo_data: {error}') from None


if __name__ == '__main__':
    main()
