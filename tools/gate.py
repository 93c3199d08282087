#!/usr/bin/env python3
"""Learn which DCT channels a trained network needs, and carry it over to them, in minutes.

A gate in front of the network, which does not change, learns to keep so many channels that the
network returns what it returns with all of them. It needs images, but no labels. The folder OUT
gets the rates of the channels (gate_rates.json), their heat map (gate_heatmap.png), the selection,
and a config and a checkpoint of the network on these channels, for test, predict, export and train.
"""
import argparse
from pathlib import Path

import mmfreq
from mmfreq.apis.gate import (
    MOST_IMAGES,
    carry_over,
    compare_selections,
    describe_distances,
    learn_channels,
    training_images,
    with_all_channels,
)
from mmfreq.apis.heatmap import plot_on_rates
from mmfreq.apis.predict import find_images
from mmfreq.apis.runs import CHECKPOINT_HELP, checkpoint_file
from mmfreq.apis.terminal import run_tool, say
from mmfreq.config.paths import config_path
from mmfreq.dct.channels import CHANNEL_NAMES, NATIVE_NAMES
from mmfreq.files import check_writable
from mmfreq.selection.rates import save_on_rates
from mmfreq.selection.static import describe_selection, named_selections, static_name, write_static


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a classifier or detector on many DCT channels, or '
                        'a stock one on RGB, which is first carried over to --channels')
    parser.add_argument('checkpoint', help=CHECKPOINT_HELP)
    parser.add_argument('data', nargs='?', help='folder of images (default: training images of the '
                        'config)')
    parser.add_argument('--target', type=int, default=24, help='channels to keep (default: '
                        '%(default)s)')
    parser.add_argument('-o', '--out', default='gate', metavar='OUT',
                        help='folder for the results (default: %(default)s)')
    parser.add_argument('--channels', default='48N', metavar='NAME',
                        choices=(*NATIVE_NAMES, *CHANNEL_NAMES), help='of a config on RGB: the channels to '
                        'choose from, 48N (all of native blocks), 192 (all of 8x8 blocks of the '
                        'enlarged image) or another name (default: %(default)s)')
    parser.add_argument('--steps', type=int, default=250, help='batches of images (default: '
                        '%(default)s)')
    parser.add_argument('--batch-size', type=int, help='images in a batch (default: that of the '
                        f"config's training, at most {MOST_IMAGES})")
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument('--device', help='such as cpu or cuda:1 (default: a GPU if there is one)')
    return parser.parse_args()


def main() -> None:
    """Carry over if need be, train the gate, write the results and say what they are."""
    args = parse_args()
    mmfreq.setup()
    out = Path(args.out)
    check_writable(out / 'gate_rates.json')
    config, checkpoint = with_all_channels(args.config, checkpoint_file(args.checkpoint),
                                           args.channels, out)
    model = mmfreq.load_model(config, checkpoint, args.device)
    loader = model.cfg.get('train_dataloader') or {}
    batch_size = args.batch_size or min(loader.get('batch_size', MOST_IMAGES), MOST_IMAGES)
    files = ([str(file) for file in find_images([args.data], args.out).values()] if args.data else
             training_images(model, args.steps * batch_size, args.seed))
    print(f'learns from {min(len(files), args.steps * batch_size):,} of {len(files):,} '
          f'{"images" if args.data else "training images"} in {args.steps} batches')
    rates = learn_channels(model, files, args.target, args.steps, batch_size, args.seed)
    channels, named = rates.top(args.target), named_selections(rates, args.target)
    distances = compare_selections(model, files, {'learned': channels, **named}, batch_size, args.seed)
    rates.meta['distances'] = {name: float(values.mean()) for name, values in distances.items()}
    save_on_rates(rates, str(out / 'gate_rates.json'))
    plot_on_rates([rates], [config_path(config).stem], str(out / 'gate_heatmap.png'))
    selection = out / f'selection-{args.target}.json'
    static = out / f'{static_name(config_path(config).stem, args.target)}.py'
    write_static(rates, channels, config_path(config), selection, static, carried=True)
    weights = carry_over(model, checkpoint, static)
    print(describe_selection(rates, channels))
    print(describe_distances(distances))
    if not rates.verdict()['decided']:
        say('WARNING: the gate is UNDECIDED: its selection is chance. Give it more --steps or images')
    for line in (f'train {static}', f'test {static} {weights}', f'predict {static} {weights} IMAGES',
                 f'export {static} {weights} {static.with_suffix(".onnx")}'):
        print(f'mmfreq {line}')


if __name__ == '__main__':
    run_tool(main)
