"""Options of the engines, checked without their libraries."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from audio_diffusion_pytorch.utils.settings import check_choice, check_number, check_text, wrong


@dataclass(frozen=True)
class RayOptions:
    """Resources on Ray.

    Args:
        address: HOST:PORT of a cluster, "auto" for the one of this machine; None starts Ray here.
        actors: number of actors; None: one for each GPU, without GPUs one for each node.
        cpus: cores of an actor; None: an equal share of a node's.
        gpus: GPUs of an actor, also a fraction; None: 1 if the cluster has GPUs.

    Raises:
        InputError: an option is wrong.
    """

    address: str | None = None
    actors: int | None = None
    cpus: float | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        check_text("ray.address", self.address, allowed=(None,))
        check_number("ray.actors", self.actors, whole=True, least=1, allowed=(None,))
        check_number("ray.cpus", self.cpus, above=0, allowed=(None,))
        check_number("ray.gpus", self.gpus, least=0, allowed=(None,))


@dataclass(frozen=True)
class SlurmOptions:
    """An array of jobs.

    Args:
        shards: elements of the array; each loads the models once.
        cluster: kind of submitit's executor: "slurm", or "local" for processes of this machine.
        parameters: parameters of submitit, for example `slurm_partition`, `timeout_min`.

    Raises:
        InputError: an option is wrong.
    """

    shards: int = 8
    cluster: str = "slurm"
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_number("slurm.shards", self.shards, whole=True, least=1)
        check_choice("slurm.cluster", self.cluster, ("slurm", "local"))
        if not isinstance(self.parameters, Mapping):
            raise wrong(
                "slurm.parameters", self.parameters, "given as +slurm.parameters.NAME=VALUE"
            )
