"""What both stages of training are made of: networks with their optimizers, and weights averaged over the steps."""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from jokr_rt.training import distributed
from jokr_rt.training.distributed import BatchNorm
from jokr_rt.training.networks import Model

Losses = dict[str, Tensor]
L = TypeVar("L", bound=nn.Module)
N = TypeVar("N", bound=nn.Module)
ADAM_BETAS = (0.5, 0.999)
GRADIENT_NORM = 10.0
AVERAGE_DECAY = 0.998


class Stage(Generic[L]):
    """Networks that learn step by step, and a critic of what they make. All that a resumed run needs is in `tensors`.

    `average` holds the learner's weights averaged exponentially over the steps, which evens out the swings of
    adversarial training (Yazici et al. 2019): what is kept of the stage. `frozen` is of an earlier stage, and does not
    learn. precision: "fp32", or "bf16" for all that goes `through` a network. rates: learning rates of the learner's
    parts, as shares of the run's, where they are not 1; critic_rate: the critic's.
    """

    def __init__(
        self,
        learner: L,
        critic: nn.Module,
        frozen: nn.Module,
        *,
        rates: Mapping[str, float],
        critic_rate: float,
        precision: str,
        device: torch.device,
    ) -> None:
        self.device, self.precision = device, precision
        self.learner, self.critic = placed(learner, device), placed(critic, device)
        self.average = copy.deepcopy(self.learner).requires_grad_(False)
        self.frozen = placed(frozen.requires_grad_(False).eval(), device)
        self._modules = nn.ModuleDict(
            {"learner": learner, "critic": critic, "average": self.average, "frozen": self.frozen}
        )
        parts = [
            {"params": [weight for weight in part.parameters() if weight.requires_grad], "rate": rates.get(name, 1.0)}
            for name, part in self.learner.named_children()
        ]
        self.optimizers = {
            "learner": torch.optim.Adam(parts, betas=ADAM_BETAS),
            "critic": torch.optim.Adam([{"params": list(critic.parameters()), "rate": critic_rate}], betas=ADAM_BETAS),
        }
        self._averaging = {name: distributed.averaging(self._modules[name]) for name in self.optimizers}
        self.sights = torch.zeros(4, 2)  # see `Sights`: what the last step showed

    def set_rate(self, rate: float) -> None:
        """The learning rate of the next step."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate * group["rate"]

    def compile(self) -> None:
        """Let `torch.compile` make the networks that learn faster; the first steps are slow then."""
        for network in (*self.learner.children(), self.critic):
            network.compile()

    def through(self, network: Callable[..., Any], *inputs: Tensor) -> Any:
        """A network's outputs, in fp32 whatever it computes in."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            outputs = network(*inputs)
        return outputs.float() if isinstance(outputs, Tensor) else tuple(output.float() for output in outputs)

    def update(self, name: str, loss: Tensor) -> None:
        """Let the "learner" or the "critic" learn from a loss that reaches all of its weights."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        self._averaging[name](loss).backward()
        nn.utils.clip_grad_norm_(self._modules[name].parameters(), GRADIENT_NORM)
        self.optimizers[name].step()

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Move `average` towards the learner; the first steps, which know little, are soon forgotten."""
        decay = min(AVERAGE_DECAY, (1 + step) / (10 + step))
        for kept, weight in zip(self.average.parameters(), self.learner.parameters(), strict=True):
            kept.lerp_(weight, 1 - decay)

    def step(self, batch: Any, ramp: float) -> Losses:
        """Learn from a batch. ramp in [0, 1] scales what comes in late. Returns the unweighted losses."""
        raise NotImplementedError

    def look(self, networks: L, batch: Any) -> object:
        """Run networks such as `average` on a batch, as a step does, for BatchNorm's statistics."""
        raise NotImplementedError

    def hand_over(self, networks: L, model: Model) -> None:
        """Copy the weights of networks such as `average` to where the model has them."""
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        """A copy of weights, buffers and the optimizers' state, under names of their own."""
        found = {name: value.clone() for name, value in self._modules.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            for index, slots in optimizer.state_dict()["state"].items():
                found |= {f"optimizers.{name}.{index}.{slot}": value.clone() for slot, value in slots.items()}
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what `tensors` gave."""
        self._modules.load_state_dict({name: tensors[name] for name in self._modules.state_dict()})
        for name, optimizer in self.optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(prefix := f"optimizers.{name}."):
                    index, _, slot = key.removeprefix(prefix).partition(".")
                    state.setdefault(int(index), {})[slot] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def placed(network: N, device: torch.device) -> N:
    """The network itself, on the device, laid out as convolutions are fastest: a pixel's channels together."""
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def weighted(found: Mapping[str, Tensor], weights: object, scale: Mapping[str, float] | None = None) -> Tensor:
    """The sum of the losses, each times its weight (the attribute of that name) and its scale, 1 if none is given."""
    scale = scale or {}
    return torch.stack([value * getattr(weights, name) * scale.get(name, 1.0) for name, value in found.items()]).sum()


def averaged(found: Mapping[str, Tensor]) -> Losses:
    """The losses of all processes."""
    return {name: distributed.mean(value.detach()) for name, value in found.items()}


@torch.no_grad()
def recompute_statistics(networks: nn.Module, passes: Iterable[object]) -> None:
    """Make BatchNorm's statistics those of the weights as they are: the plain mean over `passes`, an iterable that runs
    the networks on one batch after the other. Leaves the networks in eval mode.

    The running ones are of other weights: of those before the last steps, and of none that an average has.
    """
    layers = [layer for layer in networks.modules() if isinstance(layer, BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    networks.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = 1.0
        layer.train()
    for count, _ in enumerate(passes):
        for layer in layers:
            layer.momentum = 1 / (count + 2)  # of the next pass
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    networks.eval()
