"""Write the demo data, made from the images inside the scikit-image wheel (no download)."""
import argparse

from demo import TASKS, make_demo_data
from mmfreq.apis.terminal import run_tool

OUT = {'classification': 'data/demo', 'detection': 'data/demo_detection'}


def parse_args() -> argparse.Namespace:
    """Read the command line; counts that are not given are absent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--task', choices=sorted(TASKS), default='classification',
                        help='classification: crops, whose class is their source image; detection: '
                        'a COCO set of boxes, discs and stars on images, with masks (default: '
                        '%(default)s)')
    parser.add_argument('-o', '--out', help=f'folder to make, which must not exist (default: '
                        f'{OUT["classification"]}, {OUT["detection"]} for detection)')
    parser.add_argument('--seed', type=int, default=0,
                        help='another one cuts other boxes (default: %(default)s)')
    for split, crops, images in (('train', 100, 200), ('val', 30, 50)):
        parser.add_argument(f'--{split}', type=int, metavar='N', default=argparse.SUPPRESS,
                            help=f'{split} crops per class, or {split} images for detection '
                            f'(default: {crops} or {images})')
    args = parser.parse_args()
    args.out = args.out or OUT[args.task]
    return args


def main() -> None:
    """Make the data, or say in one line why not."""
    args = parse_args()
    try:
        files = make_demo_data(**vars(args))['files']
    except (FileExistsError, ImportError, ValueError) as error:
        raise SystemExit(str(error)) from error
    print(f'wrote {len(files)} images to {args.out}')


if __name__ == '__main__':
    run_tool(main)
