"""GateLossHook in mmengine's runner: budgets, losses, on-rates and verdicts on a task with a known answer."""
import json
import os
from functools import partial
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from numpy.testing import assert_allclose
from tool_runs import forked, free_port
from torch.utils.data import Dataset

from mmfreq.apis.runs import _use_gloo
from mmfreq.selection.gate import ChannelGate
from mmfreq.selection.hook import GateLossHook, halves_of
from mmfreq.selection.rates import load_on_rates

NUMBERS = list(range(0, 192, 6))  # channels of the 32 positions: 11 of Y, 11 of Cb, 10 of Cr
USEFUL = {1: 1.0, 4: -0.8, 9: 0.7, 16: -0.9, 25: 0.6, 30: 0.8}  # positions that tell the classes apart, and how much


class Signs(Dataset):
    """Noise (32, 2, 2). Its class is the sign of a weighted sum of the means of the ``useful`` first channels."""
    metainfo: dict = {}

    def __init__(self, count: int, useful: int = 6, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.inputs = torch.randn(count, 32, 2, 2, generator=generator)
        weights = torch.zeros(32)
        for channel in list(USEFUL)[:useful]:
            weights[channel] = USEFUL[channel]
        chance = torch.randint(2, (count, ), generator=generator)
        self.labels = (self.inputs.mean(dim=(2, 3)) @ weights > 0).long() if useful else chance

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        sample = BaseDataElement(metainfo=dict(img_path=f'{index}.jpg'), label=self.labels[index])
        return dict(inputs=self.inputs[index], data_samples=sample)


class GatedClassifier(BaseModel):
    """A gate and a linear classifier."""

    def __init__(self, gated: bool = True) -> None:
        super().__init__()
        self.gate = ChannelGate(32) if gated else torch.nn.Identity()
        self.head = torch.nn.Linear(32, 2)

    def init_weights(self) -> None:
        """Keep the weights."""

    def forward(self, inputs: list[torch.Tensor], data_samples: list[BaseDataElement], mode: str = 'tensor') -> Any:
        scores = self.head(self.gate(torch.stack(list(inputs))).mean(dim=(2, 3)))
        loss = F.cross_entropy(scores, torch.stack([sample.label for sample in data_samples]))
        return dict(loss=loss) if mode == 'loss' else list(scores)


def scattered() -> GatedClassifier:
    """Return a model whose gate decides by the image."""
    model = GatedClassifier()
    generator = torch.Generator().manual_seed(1)
    for weight in (model.gate.logit_weight, model.gate.logit_bias, model.gate.linear.weight):
        weight.data.normal_(generator=generator)
    return model


class Recorder(Hook):
    """Keep the mask, the noise and the logged values of every iteration."""
    priority = 'LOWEST'

    def __init__(self) -> None:
        self.masks: list[torch.Tensor] = []
        self.logs: list[dict[str, float]] = []
        self.noises: list[float] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        torch.manual_seed(runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        gate = getattr(runner.model, 'module', runner.model).gate
        self.masks.append(gate.mask.detach().clone())
        self.noises.append(float(gate.noise))
        self.logs.append({key: value.item() for key, value in outputs.items()})


def run(work_dir: Path, model: Optional[BaseModel] = None, train: int = 8, useful: int = 6, epochs: int = 2,
        batch: int = 4, lr: float = 0., seed: int = 0, launcher: str = 'none',
        resume: Optional[Path] = None, interval: int = 1, decay: float = 0., buffers: Optional[bool] = None,
        **hook: Any) -> tuple[Runner, Recorder]:
    loader = dict(batch_size=batch, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=lr > 0))
    described = dict(dataset=dict(pipeline=[dict(type='BlockDCT'), dict(type='ChannelSelect', channels=NUMBERS)]))
    cfg = Config(dict(train_dataloader=described, val_dataloader=described, launcher=launcher))
    if launcher != 'none':
        _use_gloo(cfg)
    recorder = Recorder()
    runner = Runner(
        model or scattered(),
        str(work_dir),
        train_dataloader=dict(loader, dataset=Signs(train, useful)),
        val_dataloader=dict(loader, dataset=Signs(7, useful, seed=1)),
        train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=interval),
        val_cfg=dict(),
        val_evaluator=[],
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=lr, momentum=0.9, weight_decay=decay), paramwise_cfg=dict(
            custom_keys={'gate.logit': dict(lr_mult=10)})),
        param_scheduler=dict(type='CosineAnnealingLR', T_max=epochs, convert_to_iter_based=True) if lr else None,
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1),
                           checkpoint=dict(type='CheckpointHook', interval=interval, save_best='gate/kept',
                                           rule='greater')),
        custom_hooks=[dict(type='GateLossHook', **hook), recorder, *(
            [] if buffers is None else [dict(type='EMAHook', update_buffers=buffers)])],
        launcher=launcher,
        randomness=dict(seed=seed),
        default_scope='mmengine',
        load_from=str(resume) if resume else None,
        resume=resume is not None,
        experiment_name=f'{work_dir.parent.name}-{work_dir.name}',
        cfg=cfg)
    runner.train()
    return runner, recorder


# Losses and budgets


def test_loss_is_the_weight_times_the_channels_kept(tmp_path: Path) -> None:
    runner, recorder = run(tmp_path, loss_weight=0.25)
    assert len(recorder.masks) == 4
    for mask, logs in zip(recorder.masks, recorder.logs):
        counted = int((mask == 1).sum()) / 4
        assert logs['loss_gate'] == pytest.approx(0.25 * counted, rel=1e-6)
        assert logs['loss'] == pytest.approx(logs['loss_task'] + logs['loss_gate'], rel=1e-6)
        parts = dict(gate_kept=mask, gate_kept_Y=mask[:, :11], gate_kept_Cb=mask[:, 11:22], gate_kept_Cr=mask[:, 22:])
        for name, part in parts.items():
            assert logs[name] == pytest.approx(int(part.sum()) / 4, rel=1e-6)
    losses = runner.model(**next(iter(runner.train_dataloader)), mode='loss')
    assert list(losses) == ['loss']  # as before the training


def test_a_price_closes_the_gate(tmp_path: Path) -> None:
    _, recorder = run(tmp_path, GatedClassifier(), 64, batch=32, epochs=20, lr=0.2, loss_weight=1.0, interval=20)
    assert recorder.logs[0]['gate_kept'] > 25
    assert recorder.logs[-1]['gate_kept'] < 10


def test_budget_and_noise_fall_between_the_phases_and_the_loss_is_the_tasks(tmp_path: Path) -> None:
    """Twenty iterations: all channels for four, then the budget falls from 32 to 2 in ten."""
    _, recorder = run(tmp_path, epochs=10, target=2, phases=(0.25, 0.75))
    budgets = [round(32 * 16**-min(max((step - 4) / 10, 0), 1)) for step in range(20)]
    assert budgets[9] == 8
    assert [logs['gate_budget'] for logs in recorder.logs] == budgets
    assert_allclose(recorder.noises, [*[1] * 5, *np.arange(0.9, -0.05, -0.1), *[0] * 5], atol=1e-6)
    for mask, logs in zip(recorder.masks, recorder.logs):
        assert set(logs) >= {'loss', 'gate_kept'}
        assert not {'loss_task', 'loss_gate'} & set(logs)
        assert logs['gate_kept'] == pytest.approx(mask.sum(dim=1).mean().item())
        assert logs['gate_kept'] == pytest.approx(logs['gate_budget'], abs=3)  # drawn
    assert all((mask.sum(dim=1) == 2).all() for mask in recorder.masks[14:])
    for epoch in range(1, 11):  # after its two iterations
        rates = load_on_rates(str(tmp_path / f'gate_rates_epoch_{epoch}.json'))
        assert rates.kept()['all'] == pytest.approx(budgets[2 * epoch - 1], abs=1e-9)
    saved = json.loads((tmp_path / 'gate_rates_epoch_10.json').read_text())
    assert saved['budget'] == 2
    assert saved['verdict'] == rates.verdict()
    assert not saved['verdict']['decided']
    assert 'WARNING - GateLossHook: the gate is UNDECIDED' in next(tmp_path.glob('*/*.log')).read_text()


@pytest.mark.usefixtures('hosts_set_up')  # mmengine 0.10.7 cannot read its checkpoints with torch 2.6
def test_a_resumed_training_continues_with_its_budget(tmp_path: Path) -> None:
    _, whole = run(tmp_path / 'whole', epochs=6, target=2, phases=(0.0, 0.5))
    _, rest = run(tmp_path / 'rest', epochs=6, target=2, phases=(0.0, 0.5), resume=tmp_path / 'whole/epoch_2.pth')
    assert rest.logs == whole.logs[4:]


@pytest.mark.parametrize('buffers', [False, True])
def test_an_average_has_the_budget(buffers: bool, tmp_path: Path) -> None:
    run(tmp_path, epochs=4, target=2, phases=(0.0, 0.5), buffers=buffers)
    for name in ('state_dict', 'ema_state_dict'):
        state = torch.load(tmp_path / 'epoch_4.pth', weights_only=False)[name]
        assert [int(value) for key, value in state.items() if key.endswith('gate.budget')] == [2]
    assert load_on_rates(str(tmp_path / 'gate_rates_epoch_4.json')).kept()['all'] == pytest.approx(2)


def test_the_gate_rests_at_the_target_and_the_best_checkpoint_is_one_of_it(tmp_path: Path) -> None:
    """Momentum and weight decay would move it, and its running statistics follow the batches."""
    run(tmp_path, epochs=4, target=2, phases=(0.0, 0.5), lr=0.1, decay=0.1, interval=1)
    states = [torch.load(tmp_path / f'epoch_{epoch}.pth', weights_only=False)['state_dict'] for epoch in (1, 2, 4)]
    gates = [{key: value for key, value in state.items() if key.startswith('gate.')} for state in states]
    assert all(torch.equal(gates[1][key], gates[2][key]) for key in gates[1])
    assert not torch.equal(gates[0]['gate.linear.weight'], gates[1]['gate.linear.weight'])
    assert not torch.equal(states[1]['head.weight'], states[2]['head.weight'])
    assert [path.name for path in tmp_path.glob('best*')] == ['best_gate_kept_epoch_2.pth']


def test_a_model_without_a_gate_and_a_target_that_does_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='one ChannelGate'):
        run(tmp_path, GatedClassifier(gated=False), target=2)
    with pytest.raises(ValueError, match=r'budget in 1\.\.32, got 33'):
        run(tmp_path, target=33)


def test_a_mask_without_gradient_is_an_error_if_it_has_a_price(tmp_path: Path) -> None:
    model = scattered()
    forward = model.gate.forward
    model.gate.forward = lambda x: torch.utils.checkpoint.checkpoint(forward, x, use_reentrant=True)
    with pytest.raises(RuntimeError, match='no gradient.*use_reentrant=False'):
        run(tmp_path, model, loss_weight=1.0)


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(loss_weight=-1), 'loss_weight .* >= 0'), (dict(loss_weight=float('inf')), 'loss_weight .* >= 0'),
    (dict(), 'either target .* or'), (dict(target=24, loss_weight=0.1), 'either target .* or'),
    (dict(target=0), 'target: .* >= 1, got 0'), (dict(target=2.5), 'target: .* got 2.5'),
    (dict(target=24, phases=(0.5, 0.2)), 'phases'), (dict(target=24, phases=(0.1, 1.1)), 'phases')])
def test_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GateLossHook(**arguments)


# Verdicts


@pytest.mark.parametrize(('target', 'useful', 'seed'), [(3, 3, 0), (6, 6, 1), (10, 5, 0)])
def test_the_useful_channels_are_kept(target: int, useful: int, seed: int, tmp_path: Path) -> None:
    torch.manual_seed(seed)
    run(tmp_path, GatedClassifier(), 512, useful, epochs=15, batch=32, lr=0.2, seed=seed, interval=15, target=target)
    rates = load_on_rates(str(tmp_path / 'gate_rates_epoch_15.json'))
    assert set(list(USEFUL)[:useful]) <= set((rates.on_rate > 0.9).nonzero()[0].tolist())
    assert rates.kept()['all'] == pytest.approx(target)
    assert rates.verdict(useful) == dict(rates.verdict(useful), common=useful, agreement=1., decided=True)


@pytest.mark.parametrize('seed', [0, 1])
def test_a_gate_that_can_learn_nothing_is_undecided(seed: int, tmp_path: Path) -> None:
    """The labels are random, and yet the probabilities of the selection differ from the others'."""
    torch.manual_seed(seed)
    run(tmp_path, GatedClassifier(), 512, 0, epochs=15, batch=32, lr=0.2, seed=seed, interval=15, target=6)
    verdict = load_on_rates(str(tmp_path / 'gate_rates_epoch_15.json')).verdict()
    assert not verdict['decided']
    assert verdict['margin'] > 0.2


# On-rates


def decisions(gate: ChannelGate, images: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return (gate.eval().logits(images).mean(dim=1) > 0).double().numpy()


def test_on_rates_are_a_recount_of_the_validation_set(tmp_path: Path) -> None:
    runner, _ = run(tmp_path, loss_weight=0.1)
    rates = load_on_rates(str(tmp_path / 'gate_rates_epoch_2.json'))
    gate, images = runner.model.gate, Signs(7, seed=1).inputs
    expected = decisions(gate, images).mean(axis=0)
    assert len(np.unique(expected)) > 4
    assert_allclose(rates.on_rate, expected, atol=1e-12)
    halves = gate.logits(images).detach()
    assert_allclose(rates.halves, halves.mean(dim=0), atol=1e-5)
    assert_allclose(rates.probability, torch.sigmoid(halves.mean(dim=1)).mean(dim=0), atol=1e-6)
    assert rates.channels.tolist() == NUMBERS
    assert (rates.images, rates.meta['epoch'], rates.meta['budget']) == (7, 2, 0)
    metrics = json.loads(next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()[-1])
    assert metrics['gate/kept'] == pytest.approx(expected.sum(), abs=1e-3)
    assert metrics['gate/kept_Cb'] == pytest.approx(expected[11:22].sum(), abs=1e-3)
    assert (tmp_path / 'gate_rates_epoch_1.json').is_file()


def two_processes(rank: int, port: str, folder: str) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    runner, _ = run(Path(folder), epochs=1, batch=2, launcher='pytorch', loss_weight=0.1)
    torch.save(runner.model.module.gate.state_dict(), f'{folder}/rank{rank}.pt')
    _, recorder = run(Path(folder, 'target'), epochs=4, batch=2, launcher='pytorch', target=2, phases=(0., 0.5))
    torch.save((recorder.masks, recorder.logs), f'{folder}/target{rank}.pt')


def test_two_processes_count_every_image_once_and_have_one_budget(tmp_path: Path) -> None:
    port = free_port()
    ended = forked(*(partial(two_processes, rank, port, str(tmp_path)) for rank in (0, 1)))
    assert [code for code, _ in ended] == [0, 0], ended
    # seven images, of which the sampler gives one to both processes; each has a batch norm of its own
    rates, images, expected = load_on_rates(str(tmp_path / 'gate_rates_epoch_1.json')), Signs(7, seed=1).inputs, []
    for rank in (0, 1):
        gate = ChannelGate(32)
        gate.load_state_dict(torch.load(tmp_path / f'rank{rank}.pt'))
        expected.append(decisions(gate, images[rank::2]))
    assert rates.images == 7
    assert_allclose(rates.on_rate, np.concatenate(expected).mean(axis=0), atol=1e-12)
    for masks, logs in (torch.load(tmp_path / f'target{rank}.pt') for rank in (0, 1)):
        assert [line['gate_budget'] for line in logs] == [16, 8, 4, 2, 2, 2, 2, 2]
        assert all((mask.sum(dim=1) == 2).all() for mask in masks[3:])
    assert load_on_rates(str(tmp_path / 'target/gate_rates_epoch_4.json')).kept()['all'] == pytest.approx(2)


def test_both_halves_have_files_of_each_folder() -> None:
    """Whose numbers differ in one bit or two, which do not change the last bit of CRC-32."""
    for folder in ('rows', 'columns'):
        paths = [f'images/{folder}/{i}.png' for i in range(8)]
        samples = [BaseDataElement(metainfo=dict(img_path=path)) for path in paths]
        assert 2 <= sum(halves_of(dict(data_samples=samples))) <= 6
    assert halves_of(dict(data_samples=[BaseDataElement()])) is None


def test_the_halves_do_not_depend_on_the_place_of_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f'{folder}/{i}.png' for folder in ('rows', 'columns') for i in range(20)]
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'rows').mkdir()
    halves = []
    for start in ('', './', '/data/', 'other/data/train/', f'{tmp_path}/'):
        samples = [BaseDataElement(metainfo=dict(img_path=f'{start}{name}')) for name in names]
        halves.append(halves_of(dict(data_samples=samples)))
    assert halves == halves[:1] * 5
