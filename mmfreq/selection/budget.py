"""How many channels a gate may keep, and the price per channel that makes it keep so many."""
import math
from typing import Sequence

PHASES = (0.15, 0.6)

_PROPORTIONAL = 4.  # price, in shares of the task's loss, of e times too many channels
_INTEGRAL = 22.  # what a whole training with the same would add to the price
_MOST = 20.  # highest price, and highest subsidy
_LEAST_NOISE = 0.02


class ChannelBudget:
    """Find the price of a channel (the paper's lambda) at which a gate keeps ``target`` of them.

    The law, with ``e = log(kept / budget)`` and ``kept`` the mean sum of probabilities:

    1. Until ``phases[0]`` of the training channels are free (lambda 0): the task shows which of
       them help.
    2. Until ``phases[1]`` the budget falls geometrically from all channels to ``target``, and the
       noise of the draws from 1 to 0.02: what training draws becomes what evaluation decides.
    3. ``lambda = share * clip(4 e + s, 0, 20)``, where ``share`` is the task's loss per channel,
       and ``s`` the integral of ``22 e`` over the training, which stands still while the clip is
       active (anti-windup).
    4. From ``phases[1]`` on lambda may be negative, down to -20 shares: too few channels are
       subsidised.

    Args:
        channels (int): Number of channels C of the gate.
        target (int): Channels to keep, in 1..C-1.
        phases (Sequence[float]): Ends of the free phase and of the squeeze, as parts of the
            training, ascending in 0..1. Defaults to :data:`PHASES`.

    Attributes:
        integral (float): ``s``, which with ``progress`` is all that the law remembers.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(self, channels: int, target: int, phases: Sequence[float] = PHASES) -> None:
        if isinstance(target, bool) or not isinstance(target, int) or not 1 <= target < channels:
            raise ValueError(f'target: expected an integer in 1..{channels - 1}, fewer than the '
                             f'channels of the gate, got {target!r}')
        self.channels = channels
        self.target = target
        self.phases = check_phases(phases)
        self.integral = 0.
        self.progress = 0.

    def budget(self, progress: float) -> float:
        """Return how many channels the gate may keep at ``progress`` (0..1) of the training."""
        return self.channels * (self.target / self.channels)**self._squeezed(progress)

    def noise(self, progress: float) -> float:
        """Return the noise of the gate's draws at ``progress``."""
        return max(1 - self._squeezed(progress), _LEAST_NOISE)

    def _squeezed(self, progress: float) -> float:
        """Return how much of the squeeze is over, 0..1."""
        free, squeezed = self.phases
        return min(max((progress - free) / (squeezed - free), 0.), 1.)

    def price(self, progress: float, kept: float, loss: float) -> float:
        """Return lambda for the next iteration, to be asked for once in each.

        Args:
            progress (float): Part of the training that is over, 0..1.
            kept (float): Channels kept, mean sum of probabilities of the last iteration.
            loss (float): Loss of the task in the last iteration.
        """
        step = max(progress - self.progress, 0.)
        self.progress = progress
        if progress < self.phases[0]:
            return 0.
        error = math.log(max(kept, 0.1) / self.budget(progress))
        growth = _INTEGRAL * error * step
        wanted = _PROPORTIONAL * error + self.integral + growth
        least = 0. if progress < self.phases[1] else -_MOST
        if least < wanted < _MOST:
            self.integral += growth
        return loss / self.channels * min(max(wanted, least), _MOST)


def check_phases(phases: Sequence[float]) -> tuple[float, float]:
    """Return the two ends of phases as a tuple; ValueError unless they ascend in 0..1."""
    ends = tuple(phases)
    if len(ends) != 2 or not 0 <= ends[0] < ends[1] <= 1:
        raise ValueError(f'phases: expected two ascending numbers in 0..1, got {phases!r}')
    return ends
