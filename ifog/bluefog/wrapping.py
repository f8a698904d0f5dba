"""What BlueFog's factories make: when it communicates, its attributes, warnings and errors.

The mixing itself is ``ifog.DecentralizedOptimizer``. BlueFog counts passes of the model instead of
steps, and starts to communicate when the last of them is over.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor

import ifog
from ifog.bluefog.mixing import require_float
from ifog.bluefog.model_timeline import ModelTimeline
from ifog.context import Context, current
from ifog.errors import ArgumentError
from ifog.handle import Handle
from ifog.mixing import Mixer, RankMixer
from ifog.optim import DecentralizedOptimizer, Order
from ifog.window_mixing import WindowMixer

__all__ = ["CommunicationType", "Models", "Style", "wrapped"]

Models = torch.nn.Module | Sequence[torch.nn.Module]
StepFunction = Callable[[Any, Tensor, Tensor, dict[str, Any]], object]


class CommunicationType(Enum):
    """By what a wrapped optimizer mixes parameters."""

    neighbor_allreduce = "neighbor.allreduce"
    hierarchical_neighbor_allreduce = "hierarchical.neighbor.allreduce"
    allreduce = "allreduce"
    empty = "empty"


class Style(NamedTuple):
    """What a factory chooses.

    Attributes:
        order: of ``DecentralizedOptimizer``.
        communication: by which operation.
        window: by which window instead: put, get, or push-sum.
        prefix: of the window's name.
    """

    order: Order
    communication: CommunicationType = CommunicationType.empty
    window: Literal["", "put", "get", "sum"] = ""
    prefix: str | None = None


def wrapped(
    optimizer: torch.optim.Optimizer, model: Models, style: Style, num_steps: int
) -> torch.optim.Optimizer:
    """The optimizer in BlueFog's style, as one of its own class.

    Raises:
        ValueError: parameters whose names are not distinct, or that are in none of the models.
    """
    models = [model] if isinstance(model, torch.nn.Module) else list(model)
    names = _names(optimizer, models)
    # So that isinstance holds, and so does the name of the class.
    kind = type(type(optimizer).__name__, (_Wrapped, type(optimizer)), {})
    made: torch.optim.Optimizer = kind(optimizer, models, names, style, num_steps)
    return made


def _names(
    optimizer: torch.optim.Optimizer, models: Sequence[torch.nn.Module]
) -> dict[Tensor, str]:
    named: list[tuple[str, Tensor]] = [
        pair for model in models for pair in model.named_parameters()
    ]
    twice = [name for name, count in Counter(name for name, _ in named).items() if count > 1]
    if twice:
        raise ArgumentError(
            f"parameter names must be distinct over all models, but {twice[0]!r} is there twice; "
            "put the models into one torch.nn.ModuleDict"
        )
    names = {x: name for name, x in named}
    strangers = sum(x not in names for group in optimizer.param_groups for x in group["params"])
    if strangers:
        raise ArgumentError(
            f"{strangers} parameters of the optimizer belong to no model that was passed; pass a "
            "list of all models"
        )
    return names


class _Wrapped(DecentralizedOptimizer):
    """A torch optimizer that communicates in one of BlueFog's styles."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        models: Sequence[torch.nn.Module],
        names: Mapping[Tensor, str],
        style: Style,
        num_steps: int,
    ) -> None:
        if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
            raise ArgumentError(
                f"num_steps_per_communication is {num_steps!r}; it must be an integer from 1 on"
            )
        self.self_weight: float | None = None
        self.src_weights: dict[int, float] | None = None
        self.dst_weights: dict[int, float] | list[int] | None = None
        self.src_machine_weights: dict[int, float] | None = None
        self.dst_machine_weights: dict[int, float] | list[int] | None = None
        self.enable_topo_check = False
        self.force_barrier = style.window == "sum"
        self._communication = style.communication
        self._window: WindowMixer | None = None
        self._num_steps = num_steps
        self._passes: Counter[int] = Counter()
        self._warned = self._skipping = False
        self._step_function: StepFunction | None = None
        self._name = _new_name()
        super().__init__(optimizer, lambda _: self._now(), order=style.order)
        if style.window:
            self._open_window(style)
        self._timeline = ModelTimeline(models, names, _topic(style))
        self._hooks = self._count_passes(models) if ifog.size() > 1 else []
        if os.environ.get("BLUEFOG_TIMELINE"):
            self.turn_on_timeline()

    @property
    def communication_type(self) -> CommunicationType:
        """By what it mixes from the next round on."""
        return self._communication

    @communication_type.setter
    def communication_type(self, value: CommunicationType) -> None:
        if not isinstance(value, CommunicationType):
            raise AssertionError(f"communication_type must be a CommunicationType, got {value!r}")
        self._communication = value

    @property
    def send_neighbors(self) -> Any:
        """The name of ``dst_weights`` in older programs."""
        return self.dst_weights

    @send_neighbors.setter
    def send_neighbors(self, value: Any) -> None:
        self.dst_weights = value

    @property
    def neighbor_weights(self) -> Any:
        """The name of ``src_weights`` in older programs."""
        return self.src_weights

    @neighbor_weights.setter
    def neighbor_weights(self, value: Any) -> None:
        self.src_weights = value

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Complete the communication that the last pass started, if it did, and make one step."""
        if self._synchronized and not self._skipping:
            warnings.warn(
                "synchronize() was called before step(), which would synchronize again; call "
                "step() in a `with optimizer.skip_synchronize():` block",
                UserWarning,
                stacklevel=3,
            )
        loss = super().step(closure)
        if self._is_due():
            self._passes.clear()
        return loss

    def synchronize(self) -> None:
        """Complete the communication that was started, and take its result."""
        if self._is_due():
            super().synchronize()

    @contextmanager
    def skip_synchronize(self) -> Iterator[None]:
        """Let ``step`` follow ``synchronize`` without a warning."""
        self._skipping = True
        try:
            yield
        finally:
            self._skipping = False

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients.

        Raises:
            AssertionError: they are on their way: between the backward pass and ``step``.
        """
        if self.order != "awc" and self._is_due() and not self._synchronized:
            raise AssertionError(
                "zero_grad() between the backward pass and step() would lose the gradients; call "
                "it after step()"
            )
        super().zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """What torch's own would be."""
        return self.optimizer.state_dict()

    def register_step_function(self, function: StepFunction) -> None:
        """Let ``function(optimizer, parameter, gradient, group)`` make the update of each one."""
        self._step_function = function

    def unregister_window(self) -> None:
        """Free the windows; every rank must call it."""
        if self._window is not None:
            self._window.close()

    def turn_on_timeline(self) -> bool:
        """Show forward and backward of each parameter in the timeline from now on."""
        return self._timeline.on()

    def turn_off_timeline(self) -> None:
        """Show them no more."""
        self._timeline.off()

    def _is_due(self) -> bool:
        return max(self._passes.values(), default=0) >= self._num_steps

    def _update(self) -> None:
        if self._step_function is None:
            super()._update()
            return
        for group in self.param_groups:
            for x in group["params"]:
                if x.grad is not None:
                    self._step_function(self, x, x.grad, group)

    def _count_passes(self, models: Sequence[torch.nn.Module]) -> list[Any]:
        """Count forward passes of the models where those communicate, else backward passes."""
        me = ref(self)

        def passed(which: int) -> None:
            optimizer = me()
            # One made later around the same model takes over, also while this one is not gone.
            if optimizer is not None and not optimizer._layout.displaced:
                optimizer._passed(which)

        if self.order != "awc":
            return [
                x.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call] # torch's
                    lambda _, which=place: passed(which)
                )
                for place, x in enumerate(self._layout.tensors)
            ]

        def after(module: torch.nn.Module, *_: Any, which: int) -> None:
            if module.training and any(x.requires_grad for x in module.parameters()):
                passed(which)

        return [
            model.register_forward_hook(lambda *args, which=place: after(*args, which=which))
            for place, model in enumerate(models)
        ]

    @torch.no_grad()
    def _passed(self, which: int) -> None:
        if self._passes[which] >= self._num_steps:
            if not self._warned:
                self._warned = True
                unit = "forward" if self.order == "awc" else "backward"
                warnings.warn(
                    f"Unexpected behavior: more than num_steps_per_communication="
                    f"{self._num_steps} {unit} passes came before step(); what the last ones "
                    "changed is not communicated. Call step() in time, or raise it.",
                    UserWarning,
                    stacklevel=2,
                )
            return
        last = self._passes[which] + 1 == self._num_steps
        if self.order == "awc" and self._under_way is None and last:
            self._begin()
        self._passes[which] += 1  # now, so that one which could not begin does not count

    def _now(self) -> Mixer:
        """What mixes by the attributes as they are at this moment."""
        if self._window is not None:
            return self._window
        kind = self._communication
        if kind is CommunicationType.empty:
            return ifog.local_mixer()
        if kind is CommunicationType.allreduce or self.order == "gradient":
            return ifog.allreduce_mixer(name=self._name)
        require_float(self.self_weight, kind.name)
        if kind is CommunicationType.neighbor_allreduce:
            return RankMixer(self._with_neighbors, self._name)
        return RankMixer(self._between_machines, self._name)

    def _with_neighbors(self, x: Tensor, _: int, name: str | None) -> Handle[Tensor]:
        return ifog.neighbor_allreduce_nonblocking(
            x,
            self_weight=self.self_weight,
            src_weights=self.src_weights,
            dst_weights=self.dst_weights,
            enable_topo_check=self.enable_topo_check,
            name=name,
        )

    def _between_machines(self, x: Tensor, _: int, name: str | None) -> Handle[Tensor]:
        return ifog.hierarchical_neighbor_allreduce_nonblocking(
            x,
            self_weight=self.self_weight,
            src_machine_weights=self.src_machine_weights,
            dst_machine_weights=self.dst_machine_weights,
            enable_topo_check=self.enable_topo_check,
            name=name,
        )

    def _open_window(self, style: Style) -> None:
        name = "parameters" if style.prefix is None else f"{style.prefix}.parameters"

        def settle() -> None:
            if self.force_barrier:
                ifog.barrier()

        if style.window == "put":
            self._window = ifog.window_mixer(
                "put", name=name, weights=lambda: self.dst_weights, before_update=settle
            )
        elif style.window == "get":
            self._window = ifog.window_mixer(
                "get", name=name, weights=lambda: self.src_weights, before_update=settle
            )
        else:
            out = ifog.out_neighbor_ranks()
            self.self_weight = 1.0 / (len(out) + 1)
            self.dst_weights = dict.fromkeys(out, self.self_weight)
            self._window = ifog.push_sum_mixer(
                name=name, weights=self._push_weights, before_update=settle
            )
        self._window.open(*self._layout.flats)

    def _push_weights(self) -> tuple[float, dict[int, float]]:
        if self.self_weight is None or not isinstance(self.dst_weights, dict):
            raise ArgumentError(
                "DistributedPushSumOptimizer needs self_weight, a float, and dst_weights, a dict "
                "of rank -> float; they should sum to 1"
            )
        return self.self_weight, self.dst_weights


_made: WeakKeyDictionary[Context, int] = WeakKeyDictionary()


def _new_name() -> str:
    """What live views and the timeline call the parameters: the same on every rank."""
    number = _made[current()] = _made.get(current(), 0) + 1
    return "parameters" if number == 1 else f"parameters {number}"


def _topic(style: Style) -> str:
    return f"win.{style.window}" if style.window else style.communication.value
