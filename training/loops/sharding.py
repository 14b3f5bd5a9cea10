"""The processes of a run: whether they know of each other, and how they part a network's weights among themselves (FSDP).

A sharded network is cut along the first dimension of every weight: of N processes each keeps 1/N of the weights, their
gradients, the optimizer's state and the moving average. What a block needs is gathered while it computes
(arXiv 2304.11277; torch's `fully_shard`). `accelerate launch` says that it is wanted, by `distributed_type: FSDP`. What lies
on disk is whole: a checkpoint has the same content as that of a run that is not sharded.
"""

import copy
import os
from dataclasses import dataclass

import torch
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

from training.options import UsageError

ASKED = "ACCELERATE_USE_FSDP"  # where `accelerate launch` leaves what its configuration says


def check_processes(kind: DistributedType, world: int) -> None:
    """Whether processes work together as the loops need it.

    Raises:
        UsageError: another library is to part the network, or the processes that were started do not know of each other.
    """
    if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise UsageError(
            f"accelerate is configured to {kind.value}; here it must be MULTI_GPU, or FSDP to part the network among processes"
        )
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != world:
        raise UsageError(
            f"{started} processes were started, and this one knows of {world}; on CPUs start them by "
            f"ACCELERATE_USE_CPU=true torchrun --nproc_per_node {started}"
        )


@dataclass(frozen=True)
class Sharding:
    """How a network is to be sharded.

    Attributes:
        layers: class names of the blocks that are gathered one at a time; () for those that the network names itself.
        reshard_after_forward: free a block's weights between its forward and backward pass.
        recompute: compute activations again in the backward pass, instead of keeping them.
    """

    layers: tuple[str, ...] = ()
    reshard_after_forward: bool = True
    recompute: bool = False

    def apply(self, model: nn.Module, device: torch.device, mixed_precision: str) -> list[str]:
        """Shard a transformers model among all processes, in place; its weights may lie anywhere before.

        Returns:
            The class names of the blocks that are gathered one at a time.

        Raises:
            UsageError: the model names no such blocks, or the number format needs all gradients in one place.
        """
        names = set(self.layers or getattr(model, "_no_split_modules", None) or ())
        kinds = {}
        for part in model.modules():
            kinds.setdefault(type(part).__name__, []).append(part)
        blocks = [part for name in sorted(names) for part in kinds.get(name, ())]
        if not blocks:
            raise UsageError(
                f"accelerate is configured to FSDP, and {type(model).__name__} has no blocks of the class "
                f"{' or '.join(sorted(names)) or 'that it would be parted by'}; configure it to MULTI_GPU"
            )
        if mixed_precision == "fp16":
            raise UsageError("--mixed_precision is fp16; with FSDP it must be bf16 or no")
        mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
        policy = MixedPrecisionPolicy()
        if mixed_precision == "bf16":
            policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        if self.recompute and model.training:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        for part in (*blocks, model):
            fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=self.reshard_after_forward)
        return sorted(names & kinds.keys())


def asked_for() -> Sharding | None:
    """What `accelerate launch` was configured to, None where it is not FSDP or there is one process only.

    It is taken out of the environment: accelerate's own FSDP would wrap the network in another way.

    Raises:
        UsageError: something is configured that is not done here.
    """
    if os.environ.pop(ASKED, "false").lower() != "true" or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None

    def says(name: str) -> str:
        return os.environ.get(f"FSDP_{name}", "").strip()

    if says("OFFLOAD_PARAMS").lower() == "true":
        raise UsageError("accelerate is configured to fsdp_offload_params: true; here it must be false")
    strategy = says("SHARDING_STRATEGY").upper() or "FULL_SHARD"
    if strategy not in ("FULL_SHARD", "SHARD_GRAD_OP", "1", "2"):
        raise UsageError(
            f"accelerate is configured to fsdp_sharding_strategy: {strategy}; it must be FULL_SHARD or SHARD_GRAD_OP"
        )
    kept = strategy in ("SHARD_GRAD_OP", "2") or says("RESHARD_AFTER_FORWARD").lower() in ("false", "shard_grad_op")
    layers = tuple(name.strip() for name in says("TRANSFORMER_CLS_TO_WRAP").split(",") if name.strip())
    return Sharding(layers, not kept, says("ACTIVATION_CHECKPOINTING").lower() == "true")


def whole(state):
    """A state dict with every parted tensor gathered on the CPU; all processes have to ask for it."""
    return tree_map(lambda v: v.full_tensor().cpu() if isinstance(v, DTensor) else v, state)


def whole_module(module: nn.Module, skeleton: nn.Module | None) -> nn.Module:
    """The module, or where it is parted its weights gathered in `skeleton`, a copy from before; all processes ask for it."""
    if skeleton is None:
        return module
    skeleton.load_state_dict(whole(module.state_dict()))
    return skeleton


def skeleton_of(model: nn.Module) -> nn.Module:
    """A copy on the CPU, which `whole_module` fills."""
    return copy.deepcopy(model).cpu().eval().requires_grad_(False)


def load_whole(part, state: dict) -> None:
    """`part.load_state_dict(state)` of a module, an optimizer or a scaler; whole tensors are parted as the part's are."""
    if isinstance(part, nn.Module):
        like = part.state_dict()
        state = {name: _parted(value, like[name]) for name, value in state.items()}
    elif hasattr(part, "param_groups"):
        parameters = [p for group in part.param_groups for p in group["params"]]
        kept = {
            number: {k: _parted(v, parameters[number]) if v.ndim else v for k, v in tensors.items()}
            for number, tensors in state["state"].items()
        }
        state = {**state, "state": kept}
    part.load_state_dict(state)


def _parted(value: Tensor, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor):
        return value
    # each process has all of it: nothing needs to be sent
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def local(tensor: Tensor) -> Tensor:
    """This process' part of a parted tensor; any other as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(tensor: Tensor) -> Tensor:
    """A parted tensor whole; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
