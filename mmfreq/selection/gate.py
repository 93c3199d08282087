"""The gate that learns which DCT channels a network needs (Xu et al. 2020, Fig. 4)."""
from typing import Any, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from mmfreq.dct.blocks import check_positive_int
from mmfreq.errors import RefusedError

CERTAIN = 1e4  # logit of a channel that is always on
_LEAST_NOISE, _LEAST_SCORE = 0.02, 1e-30


class GateNorm(nn.BatchNorm1d):
    """BatchNorm1d that treats a training batch of one, which has no variance, as in evaluation."""

    def forward(self, x: torch.Tensor, running: bool = False) -> torch.Tensor:
        """Normalise (N, C), by the running statistics in evaluation, or if ``running``."""
        if self.training and (running or x.shape[0] == 1):
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias,
                                eps=self.eps)
        return super().forward(x)


class ChannelGate(nn.Module):
    """Switch each input channel on or off, for each image anew.

    Average pooling over the grid, a fully connected layer, batch norm and ReLU give one feature per
    channel. An affine map turns it into a logit: by how much "on" exceeds "off". A channel is on in
    evaluation if its logit is positive, and in training with the probability
    ``sigmoid(logit / noise)``, with the gradient of ``sigmoid(logit + noise * draw)``
    (straight-through Gumbel-softmax). A new gate has each channel on with probability 0.87.

    A budget adds one offset to all logits of an image. In training, bisection finds the offset at
    which the probabilities sum up to the budget. In evaluation, which is the limit of noise 0, the
    offset lies between the last logit within the budget and the next one. The budget holds for each
    image, and therefore in any batch, process or average of weights. At noise 0, training decides
    as evaluation does, by the running statistics, and the gate gets no gradient.

    The last layer has weights for two halves of the training images. A training image uses those of
    its half, and evaluation the mean of both. Channels that both halves choose are not chance:
    :meth:`mmfreq.selection.rates.OnRates.verdict`.

    Channels that are off are 0, which after FreqNormalize is their mean. Decisions are taken in
    float32, also under autocast. Padding of a batch counts in the average over the grid.

    Args:
        channels (int): Number of input channels C >= 1.
        always_on (Sequence[int]): Input channels in 0..C-1 that are never switched off. Defaults to
            none.
        per_image (bool): Whether the logits depend on the image. If not, there is nothing but one
            logit per channel and half, and all images keep the same channels. Defaults to True.

    Attributes:
        mask (torch.Tensor | None): float32 (N, C), 0 or 1, of the last forward pass, with its graph
            in training. None before the first pass, and in copies; so are the next two.
        probability (torch.Tensor | None): float32 (N, C), how likely the logits of evaluation keep
            a channel at noise 1.
        halves (torch.Tensor | None): float32 (N, 2, C), logits of the two halves.
        budget (torch.Tensor): Scalar int64, saved with the weights. 0 stands for no budget.
        second (torch.Tensor | None): bool (N, ), which images of the next training batch belong to
            the second half. None, or of another length: every other image.

    Raises:
        ValueError: An argument is out of its range, or an input does not have C channels.
    """
    def __init__(self, channels: int, always_on: Sequence[int] = (),
                 per_image: bool = True) -> None:
        super().__init__()
        self.channels = check_positive_int('ChannelGate: channels', channels)
        if not set(always_on) <= set(range(channels)):
            raise ValueError(f'ChannelGate: expected always_on in 0..{channels - 1}, got {always_on}')
        self.fewest = len(set(always_on)) + 1
        self.per_image = per_image
        if per_image:
            self.linear, self.norm = nn.Linear(channels, channels), GateNorm(channels)
            self.logit_weight = nn.Parameter(torch.empty(2, channels))
        self.logit_bias = nn.Parameter(torch.empty(2, channels))
        # buffers, so that a compiled model need not be compiled anew for each value
        self.register_buffer('budget', torch.zeros((), dtype=torch.int64))
        self.register_buffer('noise', torch.ones(()), persistent=False)
        self.register_buffer('always_on', torch.zeros(channels, dtype=torch.bool), persistent=False)
        self.always_on[list(always_on)] = True
        self.mask: Optional[torch.Tensor] = None
        self.probability = self.halves = self.second = self.mask
        self.init_weights()

    def init_weights(self) -> None:
        """Start with nearly every channel on; mmengine calls this after the backbone's."""
        if self.per_image:
            nn.init.kaiming_uniform_(self.linear.weight, nonlinearity='relu')
            nn.init.zeros_(self.linear.bias)
            self.norm.reset_parameters()
            nn.init.normal_(self.logit_weight, 0., 0.001)
        with torch.no_grad():  # a budget can part channels that learn nothing; the halves disagree
            ramp = 1e-6 * torch.arange(self.channels)
            self.logit_bias.copy_(torch.stack([0.95 - ramp, 0.95 + ramp / 2]))

    def set_budget(self, budget: int, noise: float = 1.) -> None:
        """Set how many channels an image keeps, and the noise >= 0 of the draws in training.

        The budget is a number of channels up to C, above that of ``always_on``, or 0 for none.
        """
        if budget and not self.fewest <= budget <= self.channels:
            raise ValueError(f'ChannelGate: expected a budget in {self.fewest}..{self.channels}, got '
                             f'{budget!r}')
        self.budget.fill_(budget)
        self.noise.fill_(noise)

    def lower_budget(self, target: int, progress: float, noise: float = 1.) -> None:
        """Set the budget on its geometric way from all channels to ``target``: 0 <= progress <= 1."""
        self.set_budget(round(self.channels * (target / self.channels)**progress), noise)

    def logits(self, x: torch.Tensor, running: bool = False) -> torch.Tensor:
        """Return the logits (N, 2, C) of the two halves, float32, for inputs (N, C, H, W).

        They are those of evaluation in evaluation, or if ``running``.
        """
        # twice, since each half learns from half of the images
        logits = 2 * self.logit_bias.float().expand(x.shape[0], -1, -1)
        if self.per_image:
            pooled = x.mean(dim=(2, 3), dtype=torch.float32)
            with torch.autocast(x.device.type, enabled=False):
                features = F.relu(self.norm(self.linear(pooled.to(self.linear.weight.dtype)), running))
                logits = logits + 2 * features.float()[:, None] * self.logit_weight.float()
        return torch.where(self.always_on, torch.full_like(logits, CERTAIN), logits)

    def draw(self, halves: torch.Tensor) -> torch.Tensor:
        """Return scores (N, C), which are positive for the channels that training draws."""
        second = self.second
        if second is None or len(second) != len(halves):
            second = torch.arange(len(halves), device=halves.device) % 2 > 0
        logits = torch.where(second[:, None], halves[:, 1], halves[:, 0])
        noise = self.noise.clamp(min=_LEAST_NOISE)
        offset = self.solve(logits.detach(), noise) * (self.budget > 0)
        # the difference of two Gumbel variables is logistic
        return logits + offset + noise * torch.special.logit(torch.rand_like(logits), eps=1e-7)

    def solve(self, logits: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return the offsets (N, 1) at which the probabilities sum up to the budget."""
        high = logits.abs().amax(dim=1, keepdim=True) + 20 * noise
        low = -high
        for _ in range(30):
            middle = (low + high) / 2
            over = torch.sigmoid((logits + middle) / noise).sum(dim=1, keepdim=True) > self.budget
            low, high = torch.where(over, low, middle), torch.where(over, middle, high)
        return middle

    def decide(self, logits: torch.Tensor) -> torch.Tensor:
        """Return scores (N, C), which are positive for the channels that evaluation keeps."""
        ranked, order = logits.sort(dim=1, descending=True)
        ranked = F.pad(ranked, (0, 1), value=-CERTAIN)
        places = torch.stack([self.budget - 1, self.budget]).clamp(min=0)
        scores = logits - ranked.index_select(1, places).mean(dim=1, keepdim=True)
        first = torch.arange(self.channels, device=logits.device) < self.budget
        kept = torch.zeros_like(logits).scatter(1, order, first.to(logits.dtype).expand_as(logits))
        # the mean of equal or neighbouring numbers parts nothing, but their order does
        scores = torch.where(kept > 0, scores.clamp(min=_LEAST_SCORE), scores.clamp(max=0.))
        return torch.where(self.budget > 0, scores, logits)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input (N, C, H, W), in its dtype, with 0 in the channels that are off."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f'ChannelGate: expected an input (N, {self.channels}, H, W), got '
                             f'{tuple(x.shape)}; compare the channels that the pipeline selects '
                             'with in_channels of the backbone')
        self.halves = self.logits(x, running=True).detach()
        scores = self.decide(self.halves.mean(dim=1))
        self.probability = torch.sigmoid(scores)
        self.mask = (scores > 0).float()
        if self.training:
            scores = torch.where(self.noise > 0, self.draw(self.logits(x)), scores)
            soft = torch.sigmoid(scores)
            self.mask = (scores > 0).float() + (soft - soft.detach())
        return x * self.mask.to(x.dtype)[:, :, None, None]

    def __getstate__(self) -> dict[str, Any]:
        # a tensor with a graph can be neither copied nor pickled
        return {**self.__dict__, 'mask': None, 'probability': None, 'halves': None}


def find_gate(model: nn.Module) -> ChannelGate:
    """Return the gate of a model; raise RefusedError unless it has exactly one."""
    gates = {name: part for name, part in model.named_modules() if isinstance(part, ChannelGate)}
    if len(gates) != 1:
        raise RefusedError(f'expected one ChannelGate in {type(model).__name__}, got {list(gates)}; '
                           'a backbone has one with gate=dict(...)')
    return next(iter(gates.values()))
