#!/usr/bin/env python3
"""Predict for images of your own: predictions.json, and pictures with the predictions drawn.

For image a/1.jpg, DIR gets a/1.png; a/1.jpg.png if another image takes that name.
For classification and detection configs.
"""
import argparse
from pathlib import Path
from typing import Iterator

import cv2
import mmengine
import numpy as np
from tqdm import tqdm

from mmfreq.apis.predict import Prediction, Predictor, find_images, picture_paths, read_image
from mmfreq.apis.runs import (
    CFG_OPTIONS_HELP,
    CHECKPOINT_HELP,
    KeyValues,
    checkpoint_file,
    explain_refusal,
    prepare,
    read_config,
)
from mmfreq.apis.terminal import quiet, run_tool, say
from mmfreq.config.paths import one_line
from mmfreq.files import atomic_write_bytes, atomic_write_text


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help=CHECKPOINT_HELP)
    parser.add_argument('images', nargs='+', metavar='IMAGE_OR_FOLDER',
                        help='image file, or a folder: the images in it and its subfolders')
    parser.add_argument('-o', '--out', dest='out_dir', default='predictions',
                        metavar='DIR', help='folder for the results (default: %(default)s)')
    parser.add_argument('--device', help='such as cpu or cuda:1 (default: a GPU if there is one)')
    parser.add_argument('--score-thr', type=float, default=0.3, help='detections with a higher '
                        'score are drawn (default: %(default)s); predictions.json has all')
    parser.add_argument('--batch-size', type=int, default=1, help='default: %(default)s')
    parser.add_argument('--cfg-options', nargs='+', action=KeyValues, metavar='KEY=VALUE',
                        help=CFG_OPTIONS_HELP)
    return parser.parse_args()


def predict_each(predictor: Predictor, images: dict[str, np.ndarray],
                 score_thr: float) -> Iterator[tuple[str, Prediction]]:
    """Predict for a batch; where that fails, for each image alone, and name those that fail."""
    try:
        yield from zip(images, predictor.predict(list(images.values()), score_thr) if images else ())
    except (cv2.error, RuntimeError, ValueError) as error:
        if len(images) == 1:
            say(f'{next(iter(images))}: {one_line(error)}')
            return
        for name, image in images.items():
            yield from predict_each(predictor, {name: image}, score_thr)


def main() -> None:
    """Predict batch after batch; name the files that cannot be read, and go on."""
    args = parse_args()
    if args.batch_size < 1:
        raise SystemExit(f'--batch-size: expected an integer >= 1, got {args.batch_size}')
    with quiet():
        cfg = prepare(read_config(args.config, args.cfg_options))
    checkpoint = checkpoint_file(args.checkpoint)
    try:
        images = find_images(args.images, args.out_dir)
        with quiet(), explain_refusal():
            predictor = Predictor(cfg, checkpoint, args.device)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    Path(args.out_dir).mkdir(parents=True, exist_ok=True)
    pictures = dict(zip(images, picture_paths(images, args.out_dir)))
    predictions, found = {}, list(images.items())
    try:
        for start in tqdm(range(0, len(found), args.batch_size), unit='batch'):
            batch = {}
            for name, path in found[start:start + args.batch_size]:
                try:
                    batch[name] = read_image(path, **predictor.decoding)
                except (OSError, ValueError) as error:
                    say(str(error))
            with quiet():
                for name, (prediction, drawn) in predict_each(predictor, batch, args.score_thr):
                    predictions[name] = prediction
                    encoded = cv2.imencode('.png', drawn)[1].tobytes()
                    atomic_write_bytes(pictures[name], encoded)
    finally:  # also what was predicted before an interruption
        text = mmengine.dump(predictions, file_format='json') + '\n'
        atomic_write_text(Path(args.out_dir, 'predictions.json'), text)
        print(f'{len(predictions)} images predicted, in {args.out_dir}')
    scores = [max(made['scores'], default=0) for made in predictions.values() if 'scores' in made]
    if scores and max(scores) <= args.score_thr:
        print(f'no detection is drawn: none has a score above {args.score_thr} (--score-thr)')
    if len(predictions) < len(found):
        failed = len(found) - len(predictions)
        raise SystemExit(f'{failed} of {len(found)} images could not be predicted')


if __name__ == '__main__':
    run_tool(main)
