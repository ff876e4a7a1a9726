"""Which faults, in which order: a pure function of a seed and of what the deployment offers."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perilune.chaos.deployment import Deployment
from perilune.chaos.kinds import KINDS
from perilune.errors import InvalidInputError

SHORTEST_S = 1.0
LONGEST_S = 40.0  # longer than the half minute within which a service that is silent is named
LONGEST_PAUSE_S = 4.0


@dataclass(frozen=True)
class Fault:
    """One fault."""

    number: int  # from 1
    kind: str
    target: str
    duration_s: float  # 0 where it is over at once
    pause_s: float  # before it, after the system has recovered from the one before

    def __str__(self) -> str:
        return f"{self.kind} {self.target}" + (f" for {self.duration_s:.0f} s" if self.duration_s else "")


def plan(
    seed: int,
    num_faults: int,
    deployment: Deployment,
    kinds: Sequence[str] = (),
    targets: Sequence[str] = (),
    longest_s: float = LONGEST_S,
) -> list[Fault]:
    """The faults of a seed. Each is drawn from the seed and its number alone, so that a longer plan begins like a
    shorter one.

    Args:
        deployment: where they are inflicted; it decides which kinds and targets there are.
        kinds: those that are wanted; all that the deployment offers, if none is given.
        targets: services that are wanted, or links between two (`rollout-1>nats`); all, if none is given.
        longest_s: of a fault that lasts; most are much shorter.

    Raises:
        InvalidInputError: no such kind, or the deployment cannot have it.
    """
    if unknown := set(kinds) - set(KINDS):
        raise InvalidInputError(f"no such kind of fault: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    found = {
        name: [target for target in kind.targets(deployment) if not targets or target in targets]
        for name, kind in KINDS.items()
        if not kinds or name in kinds
    }
    offered = [name for name in found if found[name]]
    if missing := set(kinds) - set(offered):
        raise InvalidInputError(f"this deployment cannot have the faults {', '.join(sorted(missing))}")
    if num_faults and not offered:
        raise InvalidInputError(f"no fault hits {', '.join(targets)}; there are {', '.join(_names(deployment))}")
    numbers = range(1, num_faults + 1)
    return [_draw(random.Random(f"{seed}/{number}"), number, offered, found, longest_s) for number in numbers]


def _draw(
    source: random.Random, number: int, kinds: Sequence[str], targets: Mapping[str, Sequence[str]], longest_s: float
) -> Fault:
    (kind,) = source.choices(kinds, weights=[KINDS[name].weight for name in kinds])
    target = source.choice(targets[kind])
    # Evenly on a scale of powers: a fault of two seconds and one of forty are different faults.
    duration_s = math.exp(source.uniform(math.log(SHORTEST_S), math.log(max(SHORTEST_S, longest_s))))
    pause_s = source.uniform(0, LONGEST_PAUSE_S)
    return Fault(number, kind, target, round(duration_s, 1) if KINDS[kind].lasts else 0.0, round(pause_s, 1))


def _names(deployment: Deployment) -> list[str]:
    return [*deployment.services, *deployment.links, *deployment.stores]
