"""Training in several processes: `torchrun --nproc-per-node 4 --no-python jokr train ...` is the run of one.

Every process makes the same batches, which depend on seed and step alone, and keeps its share of the views. What is a
mean over views is a mean over equal shares. What is not (BatchNorm's statistics, all that compares sets of poses,
weighted means) sees all of them through `gather` and `mean`. Gradients are averaged by DistributedDataParallel.
Alone, a process goes through none of this: each function here gives back what it was given.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def session() -> Iterator[None]:
    """Within the block the processes that torchrun started train together; without torchrun it does nothing.

    CPU tensors travel by gloo, CUDA tensors by nccl. The first process to fail raises what went wrong; the others,
    which fail by losing it or meet the same fault, leave without a word.
    """
    if not {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys() or os.environ["WORLD_SIZE"] == "1":
        yield
        return
    store, process, processes = next(dist.rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=process, world_size=processes)
    try:
        yield
    except BaseException as error:
        if store.add("jokr/failures", 1) > 1:
            raise SystemExit(getattr(error, "exit_code", 1)) from None
        raise
    dist.destroy_process_group()


def world_size() -> int:
    """Processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number among them."""
    return dist.get_rank() if world_size() > 1 else 0


def is_leader() -> bool:
    """Whether this process is the one that writes files and talks."""
    return rank() == 0


def share(values: Tensor, count: int) -> Tensor:
    """This process's views (G * m, ...), with m = count / processes, of all (G * count, ...) in G groups."""
    return values.unflatten(0, (-1, world_size(), count // world_size()))[:, rank()].flatten(0, 1)


def gather(values: Tensor, groups: int = 1) -> Tensor:
    """All processes' `values` (groups * m, ...), differentiable: (groups * processes * m, ...), undoing `share`."""
    if world_size() == 1:
        return values
    mine = values.unflatten(0, (groups, -1))
    places = [mine if process == rank() else torch.zeros_like(mine) for process in range(world_size())]
    everyones: Tensor = _Sum.apply(torch.stack(places, dim=1))
    return everyones.flatten(0, 2)


def mean(values: Tensor) -> Tensor:
    """The mean over the processes, without gradient."""
    if world_size() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


def anyone(flag: bool) -> bool:
    """Whether the flag is set in any process; all get the same answer."""
    return mean(torch.tensor(float(flag))).item() > 0


class _Sum(torch.autograd.Function):
    """Sum over the processes. Each of them has a loss of its own that depends on it: so gradients are summed too.

    (The same of `torch.distributed.nn.functional` is deprecated.)
    """

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, upstream: Tensor) -> Tensor:
        return _Sum.forward(ctx, upstream)


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm by the statistics of all processes' shares, which must be equal.

    `nn.SyncBatchNorm` takes GPU tensors only; this one runs, and is tested, on either.
    """

    def forward(self, features: Tensor) -> Tensor:
        if world_size() == 1 or not self.training:
            return super().forward(features)
        variance, centre = torch.var_mean(features.float(), dim=(0, 2, 3), unbiased=False)
        centres, variances = gather(torch.stack([centre, variance]), groups=2).chunk(2)
        centre = centres.mean(0)
        variance = variances.mean(0) + centres.var(0, unbiased=False)
        with torch.no_grad():
            count = features.numel() / features.shape[1] * world_size()
            for kept, now in ((self.running_mean, centre), (self.running_var, variance * count / (count - 1))):
                assert kept is not None
                assert self.momentum is not None
                kept.lerp_(now, self.momentum)
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - centre * scale
        return (features * scale[:, None, None] + shift[:, None, None]).to(features.dtype)


class _Loss(nn.Module):
    """Passes a loss through. DistributedDataParallel expects gradients after its forward pass, and of its module's
    parameters, wherever they were used: so a loss may call a network's parts as it likes, several times over."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, loss: Tensor) -> Tensor:
        return loss


def averaging(network: nn.Module) -> nn.Module:
    """What to pass a loss through, so that its `backward` averages the network's gradients over the processes.

    Makes the network's weights and buffers those of the first process. BatchNorm and spectral norm then keep their
    buffers alike by themselves.
    """
    loss = _Loss(network)
    return DistributedDataParallel(loss, forward_sync_buffers=False) if world_size() > 1 else loss
