#!/usr/bin/env python3
"""Predict for images: prints classes, writes predictions.json and a picture a/1.jpg.png for each image a/1.jpg."""
import argparse
from pathlib import Path

import cv2
import mmengine
from tqdm import tqdm

import mmfreq
from mmfreq.apis.predict import find_images, in_words
from mmfreq.apis.runs import CHECKPOINT_HELP, add_cfg_options, checkpoint_file, read_config
from mmfreq.apis.terminal import run_tool, say_failed
from mmfreq.files import atomic_write_bytes, atomic_write_text


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of a classifier or detector')
    parser.add_argument('checkpoint', help=CHECKPOINT_HELP)
    parser.add_argument('images', nargs='+', metavar='IMAGE_OR_FOLDER',
                        help='image file, or a folder, whose subfolders are searched too')
    parser.add_argument('-o', '--out', dest='out_dir', default='predictions', metavar='DIR',
                        help='folder for the results (default: %(default)s)')
    parser.add_argument('--device', help='such as cpu or cuda:1 (default: a GPU if there is one)')
    parser.add_argument('--score-thr', type=float, default=0.3, help='detections with a higher '
                        'score are printed and drawn (default: %(default)s); predictions.json has all')
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    """Predict image after image; name the files that fail, and exit with 1 if there are any."""
    args = parse_args()
    mmfreq.setup()
    cfg, predictions, failed = read_config(args.config, args.cfg_options), {}, []
    images = find_images(args.images, args.out_dir)
    model = mmfreq.load_model(cfg, checkpoint_file(args.checkpoint), args.device)
    try:
        for name, file in tqdm(images.items(), unit='image', disable=None):
            try:
                prediction = model.predict(file, score_thr=args.score_thr)
            except Exception as error:  # a damaged image does not end the others
                failed.append(error)
                say_failed(name, error)
                continue
            picture = cv2.imencode('.png', prediction.pop('picture'))[1].tobytes()
            atomic_write_bytes(Path(args.out_dir, f'{name}.png'), picture)
            predictions[name] = prediction
            tqdm.write(f'{name}: {in_words(prediction, args.score_thr)}')
    finally:  # also after an interruption
        text = mmengine.dump(predictions, file_format='json') + '\n'
        atomic_write_text(Path(args.out_dir, 'predictions.json'), text)
        print(f'{len(predictions)} of {len(images)} images: {args.out_dir}/predictions.json and pictures')
    if failed:
        raise SystemExit(1) if predictions else failed[0]


if __name__ == '__main__':
    run_tool(main)
