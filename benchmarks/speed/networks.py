#!/usr/bin/env python3
"""Measure networks alone: RGB, DCT channels that enter at stage 1 or 2, channels_last and torch.compile.

All inputs correspond to the same crop: 224x224 pixels for RGB, twice this size for the channels (MobileNetV2: four
times). 24S in blocks of 8x8 pixels holds the same frequencies as 96 channels in blocks of 16x16, which enter one stage
later. Weights and inputs are random. The variants of a network take turns. RGB is the baseline of the ratios. The
tables are written to PREFIX.md and PREFIX.json.
"""
import argparse
import json
import shlex
import sys
from functools import partial

import torch
from measure import Entry, Report, Section, machine
from mmengine.analysis import FlopAnalyzer
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS

import mmfreq.models.cls  # noqa: F401  registers the backbones
from mmfreq.apis.measure import peak_memory, synchronize, time_interleaved
from mmfreq.files import atomic_write_text

EARLY, LATE = {'24S': 24, '48S': 48, '64S': 64}, {'24S': 96, '48S': 192, '64S': 256}


def variants(family: str, depth: int, size: int) -> dict[str, tuple[dict, tuple[int, int, int]]]:
    """Return backbone configs and input shapes (C, H, W) by name, RGB first. ``size`` is the side of the RGB crop."""
    stem = 2 if family == 'MobileNetV2' else 4
    depths = {} if family == 'MobileNetV2' else dict(depth=depth)
    subjects = {'RGB': (dict(type=family, **depths), (3, size, size))}
    for name, count in EARLY.items():
        subjects[name] = dict(type=f'Freq{family}', in_channels=count, **depths), (count, size // stem, size // stem)
    if depths:  # MobileNetV2 has no late entry
        for name, count in LATE.items():
            cfg = dict(type=f'Freq{family}', in_channels=count, entry_stage=2, **depths)
            subjects[f'{name}, stage 2'] = cfg, (count, size // 8, size // 8)
    return subjects


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    add = parser.add_argument
    add('--networks', nargs='+', default=['ResNet-18', 'ResNet-50', 'MobileNetV2'], help='(default: %(default)s)')
    add('--size', type=int, default=224, help='side of the RGB crop in pixels (default: %(default)s)')
    add('--batch', type=int, default=8, help='images per batch (default: %(default)s)')
    add('--repeats', type=int, default=9, help='number of rounds (default: %(default)s)')
    add('--threads', type=int, default=1, help='threads of torch (default: %(default)s)')
    add('--device', choices=['cpu', 'cuda'], default=device, help='(default: %(default)s)')
    add('--channels-last', action='store_true', help='also measure RGB and 24S in the memory format channels_last')
    add('--compile', action='store_true', help='also measure RGB and 24S with torch.compile')
    add('--out', metavar='PREFIX', default='work_dirs/networks', help='(default: %(default)s)')
    return parser.parse_args()


def main() -> None:
    """Measure, print and write."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    init_default_scope('mmpretrain')
    report = Report(machine(), shlex.join(['python', *sys.argv]), [])
    for network in args.networks:
        family, _, depth = network.partition('-')
        report.sections += measure(network, variants(family, int(depth or 0), args.size), args)
        print(Report(report.machine, '', report.sections[-4:]).markdown().partition('###')[2], flush=True)
        atomic_write_text(f'{args.out}.md', report.markdown())
        atomic_write_text(f'{args.out}.json', json.dumps(report.as_dict(), indent=1) + '\n')


def measure(network: str, subjects: dict, args: argparse.Namespace) -> list[Section]:
    """Return multiply-adds, times of forward and of forward and backward, and peak memory of the latter."""
    works, macs = {}, []
    for name, (cfg, shape) in subjects.items():
        model = MODELS.build(cfg).to(args.device)
        works[name] = model, torch.randn(args.batch, *shape, device=args.device)
        counter = FlopAnalyzer(model, (works[name][1][:1], ))
        macs.append(Entry(name, *[counter.unsupported_ops_warnings(False).total() / 1e9] * 3))
    for name in ('RGB', '24S') if args.channels_last else ():
        model, inputs = MODELS.build(subjects[name][0]).to(args.device), works[name][1]
        last = torch.channels_last
        works[f'{name}, channels_last'] = model.to(memory_format=last), inputs.contiguous(memory_format=last)
    for name in ('RGB', '24S') if args.compile else ():
        model = MODELS.build(subjects[name][0]).to(args.device)
        works[f'{name}, compiled'] = torch.compile(model), works[name][1]
    sections = [Section(f'{network}: multiply-adds', 'G/image', macs)]
    for title, run in (('forward', forward), ('forward and backward', backward)):
        calls = {name: partial(run, *work, args.device) for name, work in works.items()}
        entries = time_interleaved(calls, args.repeats, args.batch, title=f'{network}, {title}')
        sections.append(Section(f'{network}: {title}', 'ms/image', entries))
    memory = []
    for name in subjects:
        used = peak_memory(partial(backward, *works[name], args.device), args.device) / args.batch / 1e6
        memory.append(Entry(name, used, used, used))
    return [*sections, Section(f'{network}: peak memory of forward and backward', 'MB/image', memory)]


def forward(model: torch.nn.Module, inputs: torch.Tensor, device: str) -> None:
    """Run the network without gradients."""
    model.eval()
    with torch.no_grad():
        model(inputs)
    synchronize(device)


def backward(model: torch.nn.Module, inputs: torch.Tensor, device: str) -> None:
    """Run the network, and the backward pass from its last output."""
    model.train()
    model.zero_grad(set_to_none=True)
    model(inputs)[-1].sum().backward()
    synchronize(device)


if __name__ == '__main__':
    main()
