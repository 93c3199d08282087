"""GateLossHook in mmengine's runner: losses, gradients and on-rates against closed forms and recounts."""
import json
import os
from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmfreq.hosts.distributed import prepare_cpu_distributed
from numpy.testing import assert_allclose
from tool_runs import forked, free_port
from torch.utils.data import Dataset

from mmfreq.selection.gate import ChannelGate
from mmfreq.selection.hook import GateLossHook, total_loss
from mmfreq.selection.rates import load_on_rates

CHANNELS = 192


# A small model and a small data set, seen by mmengine's own runner


class Inputs(Dataset):
    """Noise (192, 2, 2) with a level of its own for each image and channel."""
    metainfo: dict = {}

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = [torch.randn(CHANNELS, 1, 1, generator=generator) +
                       0.1 * torch.randn(CHANNELS, 2, 2, generator=generator) for _ in range(count)]

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return dict(inputs=self.inputs[index])


class GatedModel(BaseModel):
    """A gate, and a task that does not depend on it, so that the gradients of the gate are those of its loss alone."""

    def __init__(self, gated: bool = True) -> None:
        super().__init__()
        self.gate = ChannelGate(CHANNELS) if gated else torch.nn.Identity()
        self.head = torch.nn.Linear(1, 1)
        if gated:
            generator = torch.Generator().manual_seed(1)
            with torch.no_grad():
                self.gate.logit_weight.normal_(generator=generator)
                self.gate.logit_bias.normal_(generator=generator)
                self.gate.linear.weight.normal_(generator=generator)

    def init_weights(self) -> None:
        """Keeps the weights above."""

    def forward(self, inputs: torch.Tensor, mode: str = 'tensor') -> Any:
        y = self.gate(torch.stack(list(inputs)) if isinstance(inputs, (list, tuple)) else inputs)
        if mode == 'loss':
            return dict(loss=self.head(torch.ones(1, 1)).square().sum() + 0 * y.sum())
        return list(y)


class Recorder(Hook):
    """Keeps the mask, the probability and the gradient of every iteration."""
    priority = 'LOWEST'

    def __init__(self) -> None:
        self.masks: list[torch.Tensor] = []
        self.grads: list[Optional[torch.Tensor]] = []
        self.logs: list[dict[str, float]] = []
        self.probabilities: list[torch.Tensor] = []
        self.noises: list[float] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        torch.manual_seed(runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        model = getattr(runner.model, 'module', runner.model)
        self.masks.append(model.gate.mask.detach().clone())
        self.probabilities.append(model.gate.probability)
        self.noises.append(float(model.gate.noise))
        self.logs.append({key: value.item() for key, value in outputs.items()})


class KeepGradients(torch.optim.SGD):
    """SGD that keeps the gradient of every step, of the first parameter."""
    seen: list[torch.Tensor] = []

    def step(self, closure: Optional[Callable] = None) -> None:
        self.seen.append(self.param_groups[0]['params'][0].grad.clone())
        super().step(closure)


def run(work_dir: Path, train: int = 8, val: int = 7, epochs: int = 2, accumulate: int = 1, launcher: str = 'none',
        batch: int = 4, hook: Optional[dict] = None, model: Optional[BaseModel] = None,
        pipeline: Optional[list] = None, checkpoints: bool = False,
        resume: Optional[Path] = None) -> tuple[Runner, Recorder, list[torch.Tensor]]:
    model = model or GatedModel()
    KeepGradients.seen = []
    recorder = Recorder()
    parameters = [model.gate.logit_bias, *model.gate.linear.parameters(), model.head.weight] if isinstance(
        model.gate, ChannelGate) else list(model.parameters())
    loader = dict(batch_size=batch, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
    cfg = Config(dict(train_dataloader=dict(dataset=dict(pipeline=pipeline or [])), launcher=launcher))
    prepare_cpu_distributed(cfg)
    runner = Runner(
        model,
        str(work_dir),
        train_dataloader=dict(loader, dataset=Inputs(train)),
        val_dataloader=dict(loader, dataset=Inputs(val)),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        val_cfg=dict(),
        val_evaluator=[],
        optim_wrapper=dict(optimizer=KeepGradients(parameters, lr=0.), accumulative_counts=accumulate),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1),
                           checkpoint=dict(type='CheckpointHook', interval=1) if checkpoints else None),
        custom_hooks=[hook or dict(type='GateLossHook', loss_weight=0.1), recorder],
        launcher=launcher,
        randomness=dict(seed=0),
        default_scope='mmengine',
        load_from=str(resume) if resume else None,
        resume=resume is not None,
        experiment_name=f'{work_dir.parent.name}-{work_dir.name}',
        cfg=cfg)
    runner.train()
    return runner, recorder, KeepGradients.seen


def analytic_gradients(inputs: list[torch.Tensor], batches: list[slice], weight: float) -> list[torch.Tensor]:
    """Gradient of weight * mean(count) with respect to the biases, in float64, drawing as the gate does."""
    gate = GatedModel().gate
    result = []
    for iteration, batch in enumerate(batches):
        torch.manual_seed(iteration)
        with torch.no_grad():
            logits = gate.logits(torch.stack(inputs[batch])).double()
            uniform = torch.rand(len(inputs[batch]), CHANNELS).clamp(1e-7, 1 - 1e-7).double()
            soft = torch.sigmoid(logits[..., 1] - logits[..., 0] + torch.log(uniform / (1 - uniform)))
            slope = weight * (soft * (1 - soft)).mean(dim=0)
        result.append(torch.stack([-slope, slope], dim=1))
    return result


# Losses


def test_loss_is_the_weight_times_the_channels_kept(tmp_path: Path) -> None:
    _, recorder, _ = run(tmp_path, hook=dict(type='GateLossHook', loss_weight=0.25))
    assert len(recorder.masks) == 4
    for mask, logs in zip(recorder.masks, recorder.logs):
        counted = int((mask == 1).sum()) / 4
        assert logs['loss_gate'] == pytest.approx(0.25 * counted, rel=1e-6)
        assert logs['loss'] == pytest.approx(logs['loss_task'] + logs['loss_gate'], rel=1e-6)
        assert logs['gate_kept'] == pytest.approx(counted, rel=1e-6)
        for i, name in enumerate(('Y', 'Cb', 'Cr')):
            assert logs[f'gate_kept_{name}'] == pytest.approx(int(mask[:, 64 * i:64 * i + 64].sum()) / 4, rel=1e-6)
        assert logs['gate_lambda'] == 0.25
    file, = tmp_path.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line['gate_kept'] for line in lines if 'loss_gate' in line] == pytest.approx(
        [logs['gate_kept'] for logs in recorder.logs], abs=1e-3)
    assert 'lambda (loss_weight) 0.25' in next(tmp_path.glob('*/*.log')).read_text()


def test_gradient_is_the_analytic_one(tmp_path: Path) -> None:
    _, _, seen = run(tmp_path, epochs=1)
    expected = analytic_gradients(Inputs(8).inputs, [slice(0, 4), slice(4, 8)], 0.1)
    for actual, reference in zip(seen, expected, strict=True):
        assert_allclose(actual, reference, atol=1e-6)


def test_gradient_under_accumulation_is_the_mean(tmp_path: Path) -> None:
    _, recorder, seen = run(tmp_path, epochs=1, accumulate=2)
    expected = analytic_gradients(Inputs(8).inputs, [slice(0, 4), slice(4, 8)], 0.1)
    assert len(seen) == 1
    assert_allclose(seen[0], (expected[0] + expected[1]) / 2, atol=1e-6)
    for mask, logs in zip(recorder.masks, recorder.logs):
        assert logs['loss_gate'] == pytest.approx(0.1 * mask.sum(dim=1).mean().item(), rel=1e-6)


def test_components_follow_the_channels_of_the_pipeline(tmp_path: Path) -> None:
    channels = list(range(191, -1, -1))
    _, recorder, _ = run(tmp_path, epochs=1, pipeline=[dict(type='BlockDCT'), dict(type='ChannelSelect',
                                                                                    channels=channels)])
    logs, mask = recorder.logs[0], recorder.masks[0]
    assert logs['gate_kept_Y'] == pytest.approx(int(mask[:, 128:].sum()) / 4, rel=1e-6)
    assert logs['gate_kept_Cr'] == pytest.approx(int(mask[:, :64].sum()) / 4, rel=1e-6)


def test_model_without_a_gate_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='expected a model with a gate, found none'):
        run(tmp_path, model=GatedModel(gated=False))


def test_pipeline_of_other_channels_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='train_dataloader: expected 192 channels.* gives 24'):
        run(tmp_path, pipeline=[dict(type='BlockDCT'), dict(type='ChannelSelect', channels='24S')])


def test_a_mask_without_gradient_is_an_error(tmp_path: Path) -> None:
    model = GatedModel()
    forward = model.gate.forward
    model.gate.forward = lambda x: torch.utils.checkpoint.checkpoint(forward, x, use_reentrant=True)
    with pytest.raises(RuntimeError, match='the mask has no gradient.*use_reentrant=False'):
        run(tmp_path, model=model)


def test_losses_are_left_alone_after_training(tmp_path: Path) -> None:
    runner, _, _ = run(tmp_path, epochs=1)
    losses = runner.model(torch.stack(Inputs(2).inputs), mode='loss')
    assert list(losses) == ['loss']


# Target


def test_lambda_follows_the_law_from_what_the_last_iteration_kept(tmp_path: Path) -> None:
    """Twenty iterations of a task whose loss stays: free for five, then the budget falls from 192 to 12 in ten."""
    _, recorder, _ = run(tmp_path, epochs=10, hook=dict(type='GateLossHook', target=12, phases=(0.25, 0.75)))
    budget, integral, expected = [], 0., 0.
    for step, (probability, logs) in enumerate(zip(recorder.probabilities, recorder.logs)):
        assert logs['gate_lambda'] == pytest.approx(expected, rel=1e-4)
        budget.append(192 * 16**-min(max((step - 5) / 10, 0), 1))
        assert logs['gate_budget'] == pytest.approx(budget[-1], rel=1e-4)
        following = 192 * 16**-min(max((step - 4) / 10, 0), 1)
        error = np.log(float(probability.sum(dim=1).mean()) / following)
        wanted = 4 * error + integral + 1.1 * error  # a twentieth of the training
        if step + 1 < 5:
            continue
        least = -20 if step + 1 >= 15 else 0
        integral += 1.1 * error if least < wanted < 20 else 0
        expected = logs['loss_task'] / 192 * min(max(wanted, least), 20)
    assert expected > 0
    assert logs['loss'] == pytest.approx(logs['loss_task'] + logs['loss_gate'], rel=1e-6)


def test_noise_falls_with_the_budget(tmp_path: Path) -> None:
    _, recorder, _ = run(tmp_path, epochs=10, hook=dict(type='GateLossHook', target=12, phases=(0.25, 0.75)))
    assert_allclose(recorder.noises, [*[1] * 6, *np.arange(0.9, 0, -0.1), *[0.02] * 5], rtol=1e-5)


def test_losses_of_a_detector_are_summed_as_mmengine_does() -> None:
    losses = dict(loss_rpn=[torch.tensor(1.0), torch.tensor([2.0, 4.0])], loss_box=torch.tensor(0.5), acc=torch.ones(1))
    expected, _ = GatedModel().parse_losses(losses)
    assert total_loss(losses).item() == expected.item() == 4.5


def test_a_resumed_training_goes_on_with_its_lambda(tmp_path: Path) -> None:
    hook = dict(type='GateLossHook', target=12, phases=(0.0, 0.5))
    _, whole, _ = run(tmp_path / 'whole', epochs=6, hook=hook, checkpoints=True)
    _, rest, _ = run(tmp_path / 'rest', epochs=6, hook=hook, resume=tmp_path / 'whole/epoch_3.pth')
    lambdas = [logs['gate_lambda'] for logs in whole.logs]
    assert lambdas[6] > 0
    assert [logs['gate_lambda'] for logs in rest.logs] == pytest.approx(lambdas[6:], rel=1e-5)


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(loss_weight=-1), 'loss_weight: expected a number >= 0'),
    (dict(loss_weight='0.1'), 'loss_weight: expected a number >= 0'),
    (dict(loss_weight=float('inf')), 'loss_weight'),
    (dict(), 'expected either target .* or loss_weight'),
    (dict(target=24, loss_weight=0.1), 'expected either target .* or loss_weight'),
    (dict(target=0), 'target: expected an integer >= 1, got 0'),
    (dict(target=2.5), 'target: expected an integer >= 1, got 2.5'),
    (dict(target=24, phases=(0.5, 0.2)), r'phases: expected two ascending numbers in 0\.\.1'),
    (dict(target=24, phases=(0.1, 0.5, 0.9)), 'phases'),
    (dict(target=24, phases=(0.1, 1.1)), 'phases'),
])
def test_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GateLossHook(**arguments)


def test_a_target_of_all_channels_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'target: expected an integer in 1\.\.191.* got 192'):
        run(tmp_path, hook=dict(type='GateLossHook', target=192))


# On-rates


def decisions(gate: ChannelGate, images: list[torch.Tensor]) -> np.ndarray:
    with torch.no_grad():
        return gate.eval().logits(torch.stack(images)).argmax(dim=-1).double().numpy()


def test_on_rates_are_a_recount_of_the_validation_set(tmp_path: Path) -> None:
    runner, _, _ = run(tmp_path)
    rates = load_on_rates(str(tmp_path / 'gate_rates_epoch_2.json'))
    expected = decisions(runner.model.gate, Inputs(7).inputs).mean(axis=0)
    assert 0.1 < expected.mean() < 0.9
    assert len(np.unique(expected)) > 5
    assert_allclose(rates.on_rate, expected, atol=1e-12)
    assert rates.images == 7
    assert rates.meta['epoch'] == 2
    assert rates.meta['loss_weight'] == 0.1
    metrics = json.loads(next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()[-1])
    assert metrics['gate/kept'] == pytest.approx(expected.sum(), abs=1e-3)
    assert metrics['gate/kept_Cb'] == pytest.approx(expected[64:128].sum(), abs=1e-3)
    assert (tmp_path / 'gate_rates_epoch_1.json').is_file()


def two_processes(rank: int, port: str, folder: str) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1',
                      MASTER_PORT=port)
    runner, recorder, seen = run(Path(folder), epochs=1, batch=2, launcher='pytorch')
    torch.save((seen, recorder.masks, recorder.logs, runner.model.module.gate.state_dict()), f'{folder}/rank{rank}.pt')
    hook = dict(type='GateLossHook', target=12, phases=(0.0, 0.5))
    _, recorder, _ = run(Path(folder, 'target'), epochs=4, batch=2, launcher='pytorch', hook=hook)
    torch.save((recorder.probabilities, recorder.logs), f'{folder}/target{rank}.pt')


def test_two_processes_count_every_image_once_and_average_gradients(tmp_path: Path) -> None:
    port = free_port()
    ended = forked(*(partial(two_processes, rank, port, str(tmp_path)) for rank in (0, 1)))
    assert [code for code, _ in ended] == [0, 0], ended
    ranks = [torch.load(tmp_path / f'rank{rank}.pt') for rank in (0, 1)]
    # seven images, of which the sampler gives one to both processes; each has a batch norm of its own
    rates = load_on_rates(str(tmp_path / 'gate_rates_epoch_1.json'))
    gates = [ChannelGate(CHANNELS), ChannelGate(CHANNELS)]
    for gate, (*_, state) in zip(gates, ranks):
        gate.load_state_dict(state)
    images = Inputs(7).inputs
    expected = np.concatenate([decisions(gate, images[rank::2]) for rank, gate in enumerate(gates)])
    assert rates.images == 7
    assert_allclose(rates.on_rate, expected.mean(axis=0), atol=1e-12)
    # every process takes each other image
    inputs = Inputs(8).inputs
    parts = [analytic_gradients(inputs[rank::2], [slice(0, 2), slice(2, 4)], 0.1) for rank in (0, 1)]
    for step in (0, 1):
        expected = (parts[0][step] + parts[1][step]) / 2
        for seen, *_ in ranks:
            assert_allclose(seen[step], expected, atol=1e-6)
    for _, masks, logs, _ in ranks:
        for mask, line in zip(masks, logs):
            assert line['loss_gate'] == pytest.approx(0.1 * mask.sum(dim=1).mean().item(), rel=1e-6)
    # one lambda, from what both keep on average
    (probabilities, logs), (others, other_logs) = (torch.load(tmp_path / f'target{rank}.pt') for rank in (0, 1))
    assert [line['gate_lambda'] for line in logs] == [line['gate_lambda'] for line in other_logs]
    kept = float(torch.cat([probabilities[0], others[0]]).sum(dim=1).mean())
    expected = logs[0]['loss_task'] / 192 * (4 + 22 / 8) * np.log(kept / (192 * 16**-0.25))
    assert logs[1]['gate_lambda'] == pytest.approx(max(expected, 0), rel=1e-5)
    assert logs[-1]['gate_lambda'] > 0
