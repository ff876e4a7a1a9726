"""Says which child process computes on which card, and how much of it: a plan as a value, from the machine as a value.

Memory is estimated (`perilune.models.memory`), so what does not fit by the estimate is said, with what to do, and is
not refused. Refused is what cannot work: more ranks than cards, a card that is not there.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module

from perilune.errors import InvalidInputError, NotFoundError, SettingsError
from perilune.local.home import services_root
from perilune.models.device import (
    GIB,
    MIN_FREE_BYTES,
    Card,
    Device,
    Machine,
    choose_device,
    has_driver,
    parse_device,
    rank_request,
)
from perilune.models.memory import (
    MIN_CACHE_BYTES,
    SHARE_USED,
    Load,
    largest_row,
    sampling_bytes,
    training_bytes,
    useful_cache_bytes,
    with_row,
)
from perilune.recipe import Recipe

PATIENCE_S = 120.0  # for torch to be imported by a busy machine, and CUDA to answer
DEVICE, VISIBLE, CACHE, TURNS = "PERILUNE_DEVICE", "CUDA_VISIBLE_DEVICES", "PERILUNE_KV_CACHE_GIB", "PERILUNE_HYBRID"
MEMORY = "PERILUNE_MEMORY_GIB"


@dataclass(frozen=True)
class Wanted:
    """Describes what the user asks for, by options and variables."""

    num_ranks: int = 1
    num_rollouts: int | None = None  # None: as many as the plan has use for
    device: str = "auto"
    visible: str = ""  # the cards that CUDA_VISIBLE_DEVICES leaves; "": all
    cache_gib: float | None = None  # keys and values of each engine; None: what the card has room for
    takes_turns: bool = False  # PERILUNE_HYBRID is set

    @staticmethod
    def of_environment(environ: Mapping[str, str], num_ranks: int = 1, num_rollouts: int | None = None) -> Wanted:
        """Reads the variables. InvalidInputError if one cannot be used."""
        parse_device(environ.get(DEVICE, "auto"))
        cache = environ.get(CACHE)
        try:
            cache_gib = float(cache) if cache else None
        except ValueError as error:
            raise InvalidInputError(f"{CACHE}: expected a number of GiB, not {cache!r}") from error
        device, visible = environ.get(DEVICE, "auto"), environ.get(VISIBLE, "")
        return Wanted(num_ranks, num_rollouts, device, visible, cache_gib, bool(environ.get(TURNS)))


@dataclass(frozen=True)
class CardPlan:
    """Describes what the children are given."""

    num_rollouts: int
    env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # by the child's name
    lines: tuple[str, ...] = ()  # the plan in words
    takes_turns: bool = False  # trainer and engine, by a folder that the launcher names


@dataclass(frozen=True)
class _Share:
    """Describes what one card is for."""

    card: Card
    load: Load | None
    num_ranks: int  # of the trainer, in all
    has_trainer: bool
    num_engines: int
    cache_gib: float | None

    @property
    def usable(self) -> int:
        return int(self.card.free_bytes * SHARE_USED)

    def cache_bytes(self, *, alone: bool = False) -> int | None:
        """Keys and values of each engine, beside the trainer or alone on the card; None if there is no room."""
        assert self.load is not None
        trainer = training_bytes(self.load, self.num_ranks) if self.has_trainer and not alone else 0
        room = (self.usable - trainer) // max(1, self.num_engines) - sampling_bytes(self.load)
        useful = useful_cache_bytes(self.load)
        if self.cache_gib is not None:
            return int(self.cache_gib * GIB) if self.cache_gib * GIB <= room else None
        return min(useful, room) if room >= min(useful, MIN_CACHE_BYTES) else None


def plan_cards(machine: Machine, wanted: Wanted, load: Load | None, num_cpu_rollouts: int) -> CardPlan:
    """Gives each rank a card, rollout workers the others, and shares cards where there are too few.

    Args:
        machine: as this process sees it.
        wanted: the user's options and variables.
        load: the run's; None if it is not known: no memory is planned then.
        num_cpu_rollouts: rollout workers where there is no card and the user does not say.

    Raises:
        SettingsError: more ranks than cards with room, or a card that is not there or is full.
    """
    request = parse_device(wanted.device)
    device = choose_device(rank_request(request, machine, 0, wanted.num_ranks), machine)
    if device.card is None:
        reason = device.reason or "PERILUNE_DEVICE=cpu"
        return CardPlan(wanted.num_rollouts or num_cpu_rollouts, lines=(f"computes on the CPU: {reason}",))
    cards = [device.card] if request.index is not None else _with_room(machine, wanted.num_ranks)
    of_trainer = cards[: wanted.num_ranks]
    others = cards[wanted.num_ranks :] if not wanted.takes_turns else []
    num_rollouts = wanted.num_rollouts or max(1, len(others))
    pool = others or of_trainer
    of_rollouts = [pool[number % len(pool)] for number in range(num_rollouts)]
    shares = [_share(card, load, wanted, card in of_trainer, of_rollouts.count(card)) for card in cards]
    takes_turns = not wanted.takes_turns and _should_take_turns(shares, num_rollouts)
    alone = takes_turns or wanted.takes_turns
    env = {"trainer": _env(of_trainer, wanted) | ({} if alone else _memory_env(shares, load))}
    for number, card in enumerate(of_rollouts, 1):
        env[f"rollout-{number}"] = _env([card], wanted) | _cache_env(shares[cards.index(card)], alone)
    return CardPlan(num_rollouts, env, (*_places(env, of_trainer, of_rollouts), *_advice(shares, alone)), takes_turns)


def _share(card: Card, load: Load | None, wanted: Wanted, has_trainer: bool, num_engines: int) -> _Share:
    """Returns what a card is for. Rows that the recipe leaves open get what engines leave, whose keys and values
    have a quarter of the card at most."""
    if load:
        cache = min(useful_cache_bytes(load), card.free_bytes // 4)
        room = card.free_bytes - num_engines * (sampling_bytes(load) + cache)
        load = with_row(load, room, wanted.num_ranks)
    return _Share(card, load, wanted.num_ranks, has_trainer, num_engines, wanted.cache_gib)


def _memory_env(shares: Sequence[_Share], load: Load | None) -> dict[str, str]:
    """The trainer's budget on a card that engines share, where its rows are as long as memory allows."""
    shared = [share for share in shares if share.has_trainer and share.num_engines and share.load]
    if load is None or load.row_tokens or not shared:
        return {}
    needed = max(training_bytes(share.load, share.num_ranks) for share in shared if share.load)
    return {MEMORY: f"{math.ceil(needed / SHARE_USED / GIB * 1000) / 1000:g}"}


def _with_room(machine: Machine, num_ranks: int) -> list[Card]:
    """Cards that are not full, the emptiest first."""
    cards = sorted(machine.cards, key=lambda card: (-card.free_bytes, card.index))
    found = [card for card in cards if card.free_bytes >= MIN_FREE_BYTES]
    if len(found) < num_ranks:
        raise SettingsError(
            f"{num_ranks} ranks of the trainer need a card each, and {len(found)} of {len(cards)} have 2 GiB free: end "
            "what fills the others, start fewer ranks (--trainer-ranks), or set PERILUNE_DEVICE=cpu"
        )
    return found


def _should_take_turns(shares: Sequence[_Share], num_rollouts: int) -> bool:
    """Tests whether trainer and engine fit one card by turns alone, and are of the kinds that can take turns."""
    (share, *_) = shares
    if share.load is None or share.num_ranks > 1 or num_rollouts > 1 or not (share.has_trainer and share.num_engines):
        return False
    fits_by_turns = training_bytes(share.load) <= share.usable and share.cache_bytes(alone=True) is not None
    return fits_by_turns and share.cache_bytes() is None and not share.load.has_adapter


def _env(cards: Sequence[Card], wanted: Wanted) -> dict[str, str]:
    """The variables that leave a child these cards; it numbers them from 0."""
    names = [name.strip() for name in wanted.visible.split(",")] if wanted.visible else []
    visible = [names[card.index] if card.index < len(names) else str(card.index) for card in cards]
    return {VISIBLE: ",".join(visible), DEVICE: parse_device(wanted.device).type}


def _cache_env(share: _Share, alone: bool) -> dict[str, str]:
    """The engine's budget, in thousandths of a GiB; nothing where the user set one, or none can be computed."""
    if share.load is None or share.cache_gib is not None or (num_bytes := share.cache_bytes(alone=alone)) is None:
        return {}
    return {CACHE: f"{max(1, math.floor(num_bytes / GIB * 1000)) / 1000:g}"}


def _places(env: Mapping[str, Mapping[str, str]], of_trainer: Sequence[Card], of_rollouts: Sequence[Card]) -> list[str]:
    lines = [f"the trainer computes on {', '.join(Device('cuda', card).in_words() for card in of_trainer)}"]
    for number, card in enumerate(of_rollouts, 1):
        cache = env[f"rollout-{number}"].get(CACHE)
        budget = f", keys and values in {cache} GiB" if cache else ""
        lines.append(f"rollout-{number} computes on {Device('cuda', card).in_words()}{budget}")
    return lines


def _advice(shares: Sequence[_Share], alone: bool) -> list[str]:
    """Returns what does not fit by the estimate, and what to do; or that the two take turns."""
    lines = []
    for share in shares:
        if share.load is None:
            continue
        where, num_bytes = f"cuda:{share.card.index}", training_bytes(share.load, share.num_ranks)
        if share.has_trainer and num_bytes > share.usable:
            lines.append(_advice_to_trainer(share, where, num_bytes))
        elif share.num_engines and share.cache_bytes(alone=True) is None:
            needed = _gib(share.num_engines * sampling_bytes(share.load))
            lines.append(
                f"{where} has too little room for what samples there, about {needed} (estimate) without "
                'keys and values: start fewer (--rollouts), set model.dtype = "bfloat16", or lower rollout.max_running'
                f" or {CACHE}"
            )
        elif share.num_engines and share.has_trainer and (alone or share.cache_bytes() is None):
            lines.append(_word_on_sharing(share, where, alone))
    return lines


def _advice_to_trainer(share: _Share, where: str, num_bytes: int) -> str:
    assert share.load is not None
    row = largest_row(share.load, share.card.free_bytes, share.num_ranks)
    shorter = f"set trainer.microbatch_tokens to at most {row}, " if row else ""
    return (
        f"the trainer needs about {_gib(num_bytes)} (estimate), and {_gib(share.usable)} of {where} can be used: "
        f"{shorter}train an adapter ([trainer.adapter]), or shard the policy over more cards (--trainer-ranks)"
    )


def _word_on_sharing(share: _Share, where: str, alone: bool) -> str:
    if alone:
        return f"trainer and engine take turns on {where}; set {TURNS} to choose the folder in shared memory"
    return (
        f"trainer and engines do not fit {where} side by side (estimate): lower trainer.microbatch_tokens or {CACHE}, "
        "or have them take turns, which one rank without an adapter does with one engine (--rollouts 1)"
    )


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.1f} GiB"


def load_here(recipe: Recipe) -> Load | None:
    """Returns what a run computes with; None without a driver, where no card asks, or where it is not known."""
    return load_of(recipe) if has_driver() else None


def load_of(recipe: Recipe) -> Load | None:
    """Returns what a run computes with; None if its model is not there, or does not say its sizes."""
    if (root := str(services_root())) not in sys.path:
        sys.path.append(root)
    try:
        found: Load | None = import_module("services.trainer.shape").load_of(recipe)
    except (NotFoundError, ModuleNotFoundError):  # what is missing, the check of the recipe says
        return None
    return found


def ask_machine() -> Machine:
    """The machine, as torch of a child process sees it: this one does without torch. No driver, no question."""
    if not has_driver():
        return Machine()
    command = [sys.executable, "-m", "perilune.models.machine"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
        return machine_from_json(done.stdout)
    except subprocess.CalledProcessError as failed:
        reason = (failed.stderr.strip().splitlines() or [f"it ended with status {failed.returncode}"])[-1]
    except (OSError, ValueError, TypeError, KeyError, subprocess.TimeoutExpired) as failed:
        reason = str(failed)
    return Machine(has_driver=True, torch_cuda="?", error=f"torch does not describe the machine: {reason}")


def machine_from_json(text: str) -> Machine:
    """Reads what `python -m perilune.models.machine` prints. ValueError, KeyError or TypeError for anything else."""
    table = json.loads(text)
    return Machine(**table | {"cards": tuple(Card(**card) for card in table["cards"])})
