"""Any torch optimizer made decentralized: what it steps on is mixed with the neighbours'.

The local update stays the wrapped optimizer's own; what varies is what is mixed (parameters before
or after the step, or gradients), how often, and by which mixer. Parameters become views of one flat
tensor, so a step sends one message to each neighbour instead of one for each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ifog import gradients
from ifog import optim_arguments as arguments
from ifog.context import current
from ifog.errors import ArgumentError
from ifog.flat import Bucket, FlatParameters
from ifog.mixed_state import MixedState
from ifog.mixing import Mixer, Mixing
from ifog.parameters import require_same
from ifog.pipeline import Pipeline, Relay, step_on
from ifog.recount import Recount
from ifog.window_mixing import WindowMixer

__all__ = ["DecentralizedOptimizer"]

Order = Literal["atc", "awc", "gradient"]


class DecentralizedOptimizer(torch.optim.Optimizer):
    """A torch optimizer whose parameters or gradients are mixed over ranks.

    With x the parameters, g the gradient at x, D the wrapped optimizer's update (for plain SGD
    D(g) = lr g) and W_k x what the mixer makes of x in round k::

        atc         x+ = W_k (x - D(g(x)))      adapt, then combine
        awc         x+ = W_k x - D(g(x))        adapt with combine (CTA, D-PSGD); can overlap
        gradient    x+ = x - D(W_k g(x))        all-reduced: big-batch SGD

    In ``awc`` D starts from W_k x: weight decay acts on that, while g was taken at x. Only what
    requires a gradient is mixed. Learning rate schedulers, groups and the state belong to both
    this optimizer and the wrapped one; state that it has already is kept.

    Begin from equal parameters on all ranks: ``ifog.broadcast_parameters(model.state_dict())``.
    Every rank must construct it, and step as often as the others if the mixer waits for any.

    Gradient clipping before ``step`` sees this rank's own gradient; with ``order="gradient"`` call
    ``synchronize()`` first to clip the mixed one. With ``torch.amp.GradScaler`` a rank whose
    gradient has overflowed makes no local update but mixes, so nobody waits for it in vain.

    Args:
        optimizer: any of torch.optim except LBFGS, or another one that steps by gradients.
        mix: a mixer, such as ``neighbor_mixer(one_peer(size()))``, or round -> mixer.
        order: what is mixed and when.
        every: J; mix in every J-th step only and make local steps between. For ``gradient``
            accumulate over J backward passes instead.
        buffers: floating-point tensors that are mixed with the parameters, such as
            ``model.buffers()`` with the running statistics of batch normalisation; others in it
            are passed over. By default each rank keeps its own.
        mix_state: names of the wrapped optimizer's state that is mixed after the step as well, in
            the same message, such as ("momentum_buffer",); only for ``atc``. Where the ranks' data
            differ much, this takes away most of the bias.
        overlap: let messages travel while the ranks compute; the results are the same. ``awc``
            starts at the end of a step to mix what the next one combines: only ``step`` may change
            parameters then, so call ``finish()`` before anything else does, and at the end. The
            others start bucket by bucket as gradients come: ``gradient`` to mix them, ``atc`` to
            step and mix; so there is one backward pass a step, its gradients are not clipped or
            scaled, and the wrapped optimizer treats each parameter by itself, as torch's do.

    Raises:
        ArgumentError: something that cannot be wrapped or mixed.
        MismatchError: the ranks' parameters differ in number, shape or dtype; on every rank.

    Example:
        >>> import torch, ifog
        >>> ifog.init()
        >>> model = torch.nn.Linear(3, 1)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> mix = ifog.neighbor_mixer(ifog.one_peer(ifog.size()))
        >>> optimizer = ifog.DecentralizedOptimizer(sgd, mix, order="atc")
        >>> model(torch.ones(2, 3)).sum().backward()
        >>> optimizer.step()

    Sources: ATC and CTA diffusion: Chen, Sayed 2012, arXiv:1111.0034. D-PSGD: Lian, Zhang, Zhang,
    Hsieh, Zhang, Liu 2017, arXiv:1705.09056. Stochastic gradient push, by ``push_sum_mixer``:
    Assran, Loizou, Ballas, Rabbat 2019, arXiv:1811.10792. The three orders side by side: Ying,
    Yuan, Hu, Chen, Pan, Yin 2021, arXiv:2111.04287.
    """

    _step_supports_amp_scaling = True  # a GradScaler must not leave out a step: others wait for it

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        mix: Mixer | Callable[[int], Mixer],
        *,
        order: Order = "atc",
        every: int = 1,
        buffers: Iterable[Tensor] = (),
        mix_state: Sequence[str] = (),
        overlap: bool = False,
    ) -> None:
        arguments.require_usable(optimizer, mix, order, every)
        if isinstance(optimizer, DecentralizedOptimizer):
            raise ArgumentError(
                "DecentralizedOptimizer: this optimizer is one already; wrap optimizer.optimizer"
            )
        buffers = tuple(buffers)
        arguments.require_combinable(mix, order, mix_state, overlap and bool(buffers), overlap)
        self._sealed = False
        # Not super(): a subclass may have the wrapped optimizer's class as its second base.
        torch.optim.Optimizer.__init__(self, optimizer.param_groups, optimizer.defaults)
        self._sealed = True
        self.optimizer = optimizer
        self._link()
        self.mix, self.order, self.every, self.overlap = mix, order, every, overlap
        self._steps = self._rounds = 0
        self._under_way: Mixing | None = None
        self._synchronized = False
        self._recount = Recount()
        trained = [(x, name) for x, name in arguments.named(optimizer) if x.requires_grad]
        self._all = [(x, x.requires_grad, name) for x, name in arguments.named(optimizer)]
        if not trained:
            raise ArgumentError(
                "DecentralizedOptimizer: no parameter of the optimizer requires a gradient"
            )
        kept = [x for x in buffers if x.is_floating_point()]
        self._layout = FlatParameters([x for x, _ in trained], [name for _, name in trained])
        self._buffers = FlatParameters(kept, [f"buffer {place}" for place in range(len(kept))])
        self._mix_state = MixedState(optimizer, self._layout, mix_state)
        self._pipeline = self._relay = None
        if overlap and order == "awc":
            self._relay = Relay(self._layout)
        elif overlap:
            self._pipeline = Pipeline(self._layout, self._start_bucket, self._starts)
        described = [f"order {order}, every {every}, mix_state {self._mix_state.keys}"]
        described += [*self._layout.describe(), *self._buffers.describe()]
        require_same("DecentralizedOptimizer", described)

    def _link(self) -> None:
        """Share groups and state with the wrapped optimizer, which may have replaced its own."""
        self.param_groups = self.optimizer.param_groups
        self.state = self.optimizer.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step and mix, unless this one is local; every rank must call it.

        Args:
            closure: evaluated once, before anything else.

        Returns:
            What the closure returned.

        Raises:
            ArgumentError: parameters were moved, added, frozen or unfrozen since construction.
            PeerFailedError: another rank failed meanwhile.
        """
        self._resume()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._link()
        arguments.require_unchanged(self.optimizer, self._all)
        self._layout.require_in_place()
        self._buffers.require_in_place()
        overflowed = self._unscale()
        self._steps += 1
        due = self._is_due()
        if due and not self._synchronized and self._relay is None:
            self._mix_now()
        if self.order == "gradient" and hasattr(self, "found_inf"):
            overflowed = not gradients.finite(
                self._layout
            )  # the gradient is no longer this rank's alone
        if self._relay is not None:
            self._pass_on(self._relay, due and not self._synchronized, overflowed)
        elif self._pipeline is not None and due and self.order == "atc":
            self._finish_steps(self._pipeline)
        elif not overflowed:
            self._update()
        self._synchronized = False
        if self._pipeline is None and due and self.order == "atc":
            self._begin()
            self._install()
        return loss

    @torch.no_grad()
    def synchronize(self) -> None:
        """Do now what the next ``step`` would mix before its local update; it then mixes no more.

        With ``gradient`` the gradients are mixed then, to be clipped or looked at; with ``awc`` the
        parameters. With ``atc``, or before a local step, nothing is. Every rank or none calls it.
        """
        self._resume()
        if self._is_next_due() and not self._synchronized and self.order != "atc":
            self._mix_now()
            self._synchronized = True

    @torch.no_grad()
    def finish(self) -> None:
        """Wait for what is under way and drop it: the next ``step`` mixes anew in the same round.

        For ``overlap`` only; every rank must call it. It changes no result, but until the next
        ``step`` parameters may be changed.
        """
        if self._recount.due:
            self._forget()
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.wait()
        if self._relay is not None:
            self._relay.drop()

    def _resume(self) -> None:
        """After a failure nothing is under way any more, and the ranks are to count alike again."""
        if not self._recount.due:
            return
        self._forget()
        mix = self.mix if isinstance(self.mix, Mixer) else self.mix(self._rounds)
        if isinstance(mix, WindowMixer):  # which waits for nobody
            self._recount.pass_over()
        else:
            agreed = self._recount.agree("DecentralizedOptimizer", self._steps, self._rounds)
            self._steps, self._rounds = agreed

    def _forget(self) -> None:
        self._under_way, self._synchronized = None, False
        for started in (self._relay, self._pipeline):
            if started is not None:
                started.forget()

    def _starts(self) -> bool:
        """Whether the step after this backward pass mixes."""
        self._resume()
        return self._is_next_due()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, mixed ones too."""
        super().zero_grad(set_to_none)
        if self.order == "gradient":
            self._synchronized = False

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Not possible afterwards: what is mixed is fixed when the optimizer is made.

        Raises:
            ArgumentError: always.
        """
        if self._sealed:
            raise ArgumentError(
                "DecentralizedOptimizer: parameters cannot be added afterwards; add them to the "
                "torch optimizer first, then make a new DecentralizedOptimizer (its state is kept)"
            )
        torch.optim.Optimizer.add_param_group(self, param_group)

    def state_dict(self) -> dict[str, Any]:
        """What the wrapped optimizer says, and under "decentralized" how far mixing is.

        The wrapped optimizer alone can load it as well.
        """
        own = {"steps": self._steps, "rounds": self._rounds}
        return {**self.optimizer.state_dict(), "decentralized": own}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state, which may be one of the wrapped optimizer alone."""
        self.finish()
        own = state_dict.get("decentralized", {"steps": 0, "rounds": 0})
        rest = {key: value for key, value in state_dict.items() if key != "decentralized"}
        self.optimizer.load_state_dict(rest)
        self._link()
        self._steps, self._rounds = int(own["steps"]), int(own["rounds"])

    def _is_due(self) -> bool:
        """Whether this step, which is counted already, mixes."""
        return self._steps % self.every == 0

    def _is_next_due(self) -> bool:
        return (self._steps + 1) % self.every == 0

    def _update(self) -> None:
        """Make the local update."""
        self.optimizer.step()

    def _mixer(self) -> Mixer:
        if not isinstance(self.mix, Mixer):
            return self.mix(self._rounds)
        if hasattr(self.mix, "step"):
            self.mix.step = self._rounds
        return self.mix

    def _begin(self) -> None:
        """Start to mix parameters, and what goes with them."""
        state = self._mix_state.gathered()
        self._under_way = self._start(*self._layout.flats, *self._buffers.flats, *state)

    def _start(self, *xs: Tensor) -> Mixing:
        """Start to mix; with ``overlap`` it goes on while this rank computes, if that can gain."""
        mixing = self._mixer().start(*xs)
        if self.overlap:
            context = current()
            between_machines = len(set(context.transport.machines)) > 1
            if between_machines or any(device.type != "cpu" for device, _ in self._layout.kinds):
                context.progress.background.serve()
        return mixing

    def _mix_now(self) -> None:
        """Mix what the local update is to start from."""
        if self._pipeline is not None and self.order == "gradient":
            self._finish_gradients(self._pipeline)
        elif self.order == "gradient":
            self._mix_gradients()
        elif self._relay is not None:
            self._begin_relay(self._relay)
            self._rounds += 1
            for bucket in self._relay.buckets:
                self._layout.stretch(bucket).copy_(self._relay.take(bucket))
        elif self.order == "awc":
            if self._under_way is None:
                self._begin()
            self._install()

    def _begin_relay(self, relay: Relay) -> None:
        if not relay.under_way:
            for bucket in relay.buckets:
                relay.put(bucket, self._start(self._layout.stretch(bucket)))

    def _pass_on(self, relay: Relay, due: bool, overflowed: bool) -> None:
        """Take each bucket's mean, step on it, and send it off again while the others arrive."""
        if due:
            self._begin_relay(relay)
            self._rounds += 1
        for bucket in relay.buckets:
            stretch = self._layout.stretch(bucket)
            if due:
                stretch.copy_(relay.take(bucket))
            if not overflowed:
                step_on(self.optimizer, self._layout.of(bucket))
            if self._is_next_due():
                relay.put(bucket, self._start(stretch))

    def _install(self) -> None:
        """Wait for what was started and take it."""
        assert self._under_way is not None
        under_way, self._under_way = self._under_way, None
        mixed = _tuple(under_way.wait())
        self._rounds += 1
        own, kept = len(self._layout.flats), len(self._buffers.flats)
        self._layout.assign(mixed[:own])
        self._buffers.assign(mixed[own : own + kept])
        self._mix_state.assign(mixed[own + kept :])

    def _mix_gradients(self) -> None:
        """Replace gradients by mixed ones."""
        flats = gradients.flattened(self._layout)
        mixed = _tuple(self._mixer()(*flats, *self._buffers.flats))
        self._rounds += 1
        gradients.restore(self._layout, mixed[: len(flats)])
        self._buffers.assign(mixed[len(flats) :])

    def _start_bucket(self, bucket: Bucket) -> Mixing:
        """Send the bucket's gradients off or, for ``atc``, step on it and send that."""
        if self.order == "atc":
            step_on(self.optimizer, self._layout.of(bucket))
            return self._start(self._layout.stretch(bucket))
        like = self._layout.flats[bucket.which]
        return self._start(gradients.flattened_bucket(self._layout, bucket, like))

    def _finish_steps(self, pipeline: Pipeline) -> None:
        for bucket, mixed in pipeline.results():
            self._layout.stretch(bucket).copy_(mixed)
        self._rounds += 1

    def _finish_gradients(self, pipeline: Pipeline) -> None:
        for bucket, mixed in pipeline.results():
            gradients.restore_bucket(self._layout, bucket, mixed)
        self._rounds += 1

    def _unscale(self) -> bool:
        """Undo the scale of a ``GradScaler``, if one steps; whether a gradient has overflowed."""
        found, scale = getattr(self, "found_inf", None), getattr(self, "grad_scale", None)
        if found is None:
            return False
        if self._pipeline is not None:
            raise ArgumentError(
                "DecentralizedOptimizer: overlap=True has sent the gradients before a GradScaler "
                "could scale them back; leave one of the two out, or use order='awc'"
            )
        if scale is not None:
            gradients.unscale(self._layout, scale)
        return bool(found.item())


def _tuple(mixed: Any) -> tuple[Tensor, ...]:
    return mixed if isinstance(mixed, tuple) else (mixed,)
