#!/usr/bin/env python3
"""Predict for photos of your own: pictures with the predictions drawn on the photos, and the predictions as JSON.

For photo a/1.jpg, DIR gets a/1.jpg.png and a/1.jpg.json. For classification and detection configs.
"""
import argparse
from pathlib import Path

import cv2
import mmengine
from mmengine.config import DictAction
from tqdm import tqdm

from mmfreq.apis.predict import Predictor, find_photos
from mmfreq.apis.runner import CFG_OPTIONS_HELP, checkpoint_file, explain_refusal, prepare, read_config
from mmfreq.files import atomic_write_bytes, atomic_write_text
from mmfreq.image_files import read_image_file


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file, or a work dir: its last checkpoint')
    parser.add_argument('photos', nargs='+', metavar='IMAGE_OR_FOLDER', help='image file, or a folder: the images in '
                        'it and its subfolders')
    parser.add_argument('--out-dir', required=True, metavar='DIR', help='folder for pictures and predictions')
    parser.add_argument('--device', help='such as cpu or cuda:1 (default: a GPU if there is one)')
    parser.add_argument('--score-thr', type=float, default=0.3, help='detections with a higher score are drawn '
                        '(default: %(default)s); all are in the JSON files')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help=CFG_OPTIONS_HELP)
    return parser.parse_args()


def main() -> None:
    """Predicts photo after photo; names those that cannot be read, and goes on."""
    args = parse_args()
    cfg = prepare(read_config(args.config, args.cfg_options))
    checkpoint = checkpoint_file(args.checkpoint)
    try:
        photos = find_photos(args.photos, args.out_dir)
        with explain_refusal():
            predictor = Predictor(cfg, checkpoint, args.device)
    except ValueError as error:
        raise SystemExit(f'predict: {error}') from error
    unreadable = 0
    for name, path in tqdm(photos.items(), unit='photo'):
        try:
            photo = read_image_file(str(path))
        except (OSError, ValueError) as error:
            tqdm.write(f'predict: {error}')
            unreadable += 1
            continue
        prediction, drawn = predictor.predict(photo, args.score_thr)
        out = str(Path(args.out_dir, name))
        atomic_write_bytes(f'{out}.png', cv2.imencode('.png', drawn)[1].tobytes())
        atomic_write_text(f'{out}.json', mmengine.dump(dict(image=str(path), **prediction), file_format='json') + '\n')
    print(f'{len(photos) - unreadable} photos predicted, in {args.out_dir}')
    if unreadable:
        raise SystemExit(f'predict: {unreadable} of {len(photos)} photos could not be read')


if __name__ == '__main__':
    main()
