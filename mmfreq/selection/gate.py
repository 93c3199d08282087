"""The gate that learns which DCT channels a network needs (Xu et al. 2020, Fig. 4)."""
from typing import Any, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from mmfreq.dct.blocks import check_positive_int


class GateNorm(nn.BatchNorm1d):
    """BatchNorm1d that takes a training batch of one, which has no variance, as in evaluation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (N, C)."""
        if self.training and x.shape[0] == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias,
                                eps=self.eps)
        return super().forward(x)


class ChannelGate(nn.Module):
    """Switch each input channel on or off, for each sample anew.

    Average pooling over the grid, a fully connected layer, batch norm and ReLU give one feature per
    channel, and an affine map of it two logits (off, on). In training, a channel is on with
    probability ``sigmoid((logit_on - logit_off) / noise)``: Gumbel-softmax, hard in the forward
    pass, with the gradient of the soft one at ``temperature`` in the backward pass
    (straight-through). In evaluation the larger logit decides. A new gate has noise 1 and every
    channel on with probability ``sigmoid(2.0 - 0.1) = 0.87``; with :meth:`set_noise` the draws come
    closer to the decisions of evaluation.

    Channels that are off are 0, which after FreqNormalize is their mean. The decisions are taken in
    float32, also under autocast. The sum of ``mask``, times a factor, belongs into the loss:
    :class:`mmfreq.selection.hook.GateLossHook`.

    Padding of a batch counts in the average, so that the decisions for an image that others in its
    batch make larger may differ from those for the image alone. Reentrant activation checkpointing
    around the gate is not supported: it cuts the loss off from the mask; GateLossHook reports it.

    Args:
        channels (int): Number of input channels C >= 1.
        temperature (float): Temperature > 0 of the soft decision: small is close to the hard one,
            with gradients that are large and rare. Defaults to 1.
        always_on (Sequence[int]): Input channels in 0..C-1 that are never switched off. Defaults to
            none.

    Attributes:
        mask (torch.Tensor | None): (N, C) of the last forward pass, float32, 0 or 1, with its graph
            in training; None before the first one, and in copies.
        probability (torch.Tensor | None): (N, C) of the last forward pass, float32, without graph:
            in training, how likely a channel was drawn; in evaluation, how likely at noise 1.
        noise (torch.Tensor): Scalar > 0, noise of the draws in training.

    Raises:
        ValueError: An argument is out of its range, or an input does not have C channels.
    """
    mask: Optional[torch.Tensor]
    probability: Optional[torch.Tensor]

    def __init__(self, channels: int, temperature: float = 1.,
                 always_on: Sequence[int] = ()) -> None:
        super().__init__()
        self.channels = check_positive_int('ChannelGate: channels', channels)
        if not temperature > 0:
            raise ValueError(f'ChannelGate: expected a temperature > 0, got {temperature!r}')
        bad = [i for i in always_on if type(i) is not int or not 0 <= i < channels]
        if bad:
            raise ValueError('ChannelGate: expected always_on to hold integers in '
                             f'0..{channels - 1}, got {bad}')
        self.temperature = temperature
        self.linear = nn.Linear(channels, channels)
        self.norm = GateNorm(channels)
        self.logit_weight = nn.Parameter(torch.empty(channels, 2))
        self.logit_bias = nn.Parameter(torch.empty(channels, 2))
        # a buffer, so that a compiled model need not be compiled anew for each value
        self.register_buffer('noise', torch.ones(()), persistent=False)
        self.register_buffer('always_on', torch.zeros(channels, dtype=torch.bool), persistent=False)
        self.always_on[list(always_on)] = True
        self.mask = self.probability = None
        self.init_weights()

    def init_weights(self) -> None:
        """Start with nearly every channel on; mmengine calls this after the backbone's."""
        nn.init.kaiming_uniform_(self.linear.weight, nonlinearity='relu')
        nn.init.zeros_(self.linear.bias)
        self.norm.reset_parameters()
        nn.init.normal_(self.logit_weight, 0., 0.001)
        with torch.no_grad():
            self.logit_bias.copy_(torch.tensor([0.1, 2.0]))

    def set_noise(self, noise: float) -> None:
        """Set the noise of the draws in training, > 0."""
        if not noise > 0:
            raise ValueError(f'ChannelGate: expected a noise > 0, got {noise!r}')
        self.noise.fill_(noise)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (N, C, 2) of off and on, float32, for inputs (N, C, H, W)."""
        pooled = x.mean(dim=(2, 3), dtype=torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            features = F.relu(self.norm(self.linear(pooled.to(self.linear.weight.dtype)))).float()
            return features[:, :, None] * self.logit_weight.float() + self.logit_bias.float()

    def decide(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the mask (N, C) of 0 and 1: drawn in training, the larger logit in evaluation."""
        score = margin(logits)
        if not self.training:
            return self._fixed((score > 0).float())
        # the difference of two Gumbel variables is logistic
        score = score + self.noise * torch.special.logit(torch.rand_like(score), eps=1e-7)
        soft = torch.sigmoid(score / self.temperature)
        return self._fixed((score > 0).float() + (soft - soft.detach()))

    def _fixed(self, values: torch.Tensor) -> torch.Tensor:
        return torch.where(self.always_on, torch.ones_like(values), values)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input (N, C, H, W), in its dtype, with 0 in the channels that are off."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f'ChannelGate: expected an input (N, {self.channels}, H, W), got '
                             f'{tuple(x.shape)}; compare the channels that the pipeline selects '
                             'with in_channels of the backbone')
        logits = self.logits(x)
        self.mask = self.decide(logits)
        noise = self.noise if self.training else 1.
        self.probability = self._fixed(torch.sigmoid(margin(logits.detach()) / noise))
        return x * self.mask.to(x.dtype)[:, :, None, None]

    def __getstate__(self) -> dict[str, Any]:
        # a tensor with a graph can be neither copied nor pickled
        return {**self.__dict__, 'mask': None, 'probability': None}


def margin(logits: torch.Tensor) -> torch.Tensor:
    """Return by how much the logit of "on" exceeds that of "off": (..., 2) -> (...)."""
    return logits[..., 1] - logits[..., 0]


def find_gate(model: nn.Module) -> Optional[ChannelGate]:
    """Return the gate of a model, None without one; raise ValueError if there are several."""
    gates = {name: part for name, part in model.named_modules() if isinstance(part, ChannelGate)}
    if len(gates) > 1:
        raise ValueError(f'expected one ChannelGate in {type(model).__name__}, found '
                         f'{", ".join(gates)}')
    return next(iter(gates.values()), None)
