"""What a round does: a pure function of the seed and the round's number. Timing is not; so what comes of it varies.

A round is a story of its own, so that one can be repeated alone. It has acts. In an act each pod's operations run one
after the other, different pods' at the same time, and faults strike meanwhile. After an act the kubelet puts right what
is not as it wants it: a pod is whole (everything in it runs) or removed. That is where the next act begins.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

ACTS = 2
#: How many pods there are at most, where nobody says otherwise.
PODS = 4
#: How long the kubelet waits for an answer, in seconds; now and then it does not have that much patience.
PATIENCE = 20.0
_HURRY = (0.03, 0.1, 0.3)

GUEST = "guest"
SIDECARS = ("side0", "side1")
HANDLERS = ("unikernel", "unikernel-routed", "unikernel-podsandbox", "unikernel-podsandbox-routed")


class Verb(enum.StrEnum):
    """What is asked of a pod (the first four) or of a container in it."""

    RUN_POD = "RunPodSandbox"
    STOP_POD = "StopPodSandbox"
    REMOVE_POD = "RemovePodSandbox"
    SECOND_GUEST = "run a second unikernel"
    CREATE = "CreateContainer"
    BEGIN = "StartContainer"
    RUN = "CreateContainer, StartContainer"
    STOP = "StopContainer"
    REMOVE = "RemoveContainer"
    EXEC = "ExecSync"
    STATS = "ContainerStats"
    PAUSE = "ctr task pause"
    RESUME = "ctr task resume"
    KILL = "ctr task kill"
    PING = "ping"


class Fault(enum.StrEnum):
    """What goes wrong. `faults` says how it is done."""

    DAEMON_KILLED = "daemon killed"
    DAEMON_RESTARTED = "daemon restarted"
    DAEMON_MORTAL = "daemon dies at a step of its journal"
    DAEMON_STOPPED = "daemon hangs"
    CONTAINERD_KILLED = "containerd killed"
    BOTH_KILLED = "both killed"
    REBOOT = "reboot"
    MONITOR_KILLED = "monitor killed"
    MONITOR_STOPPED = "monitor stopped"
    NETNS_DELETED = "netns deleted"
    ENGINE_HANGS = "engine hangs"
    ENGINE_FAILS = "engine fails"
    ENGINE_LIES = "engine fails after its work is done"
    DISK_FULL = "run directory full"
    DISK_READ_ONLY = "run directory read-only"
    DISK_FROZEN = "run directory's disk hangs"


#: Faults of one group would undo each other; so no two of one strike in the same act. A reboot strikes alone.
GROUPS = {fault: str(fault).partition(" ")[0] for fault in Fault} | {
    Fault.BOTH_KILLED: "daemon",
    Fault.CONTAINERD_KILLED: "daemon",
    Fault.DISK_FULL: "disk",
    Fault.DISK_READ_ONLY: "disk",
    Fault.DISK_FROZEN: "disk",
}


class Expected(enum.StrEnum):
    """What becomes of an operation where no fault strikes."""

    SUCCESS = "success"
    REFUSAL = "refusal"
    EITHER = "either"


class Life(enum.StrEnum):
    """Where a container is, as the kubelet sees it where nothing goes wrong."""

    ABSENT = "absent"
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"


@dataclass(frozen=True)
class Operation:
    """One call; `patience` is its deadline in seconds."""

    verb: Verb
    container: str = ""
    expected: Expected = Expected.SUCCESS
    patience: float = PATIENCE

    def __str__(self) -> str:
        hurry = "" if self.patience == PATIENCE else f" within {self.patience:g} s"
        return " ".join(filter(None, (str(self.verb), self.container))) + hurry


@dataclass(frozen=True)
class Strike:
    """A fault, `after` seconds into the act, lifted `lasts` seconds later. `victim` chooses among those there are."""

    fault: Fault
    after: float
    lasts: float
    victim: int

    def __str__(self) -> str:
        return f"{self.fault} after {self.after:.2f} s for {self.lasts:.2f} s (victim {self.victim})"


@dataclass(frozen=True)
class PodPlan:
    """A pod that the kubelet is to run. A `stubborn` guest takes no notice of SIGTERM."""

    name: str
    handler: str
    sidecars: tuple[str, ...]
    stubborn: bool

    @property
    def containers(self) -> tuple[str, ...]:
        """By name; the order in which a kubelet starts them."""
        return (*self.sidecars, GUEST)


@dataclass(frozen=True)
class Act:
    """Operations by pod; strikes; and which pods the kubelet removes when it is over."""

    operations: dict[str, tuple[Operation, ...]]
    strikes: tuple[Strike, ...]
    removed: frozenset[str]

    @property
    def calm(self) -> bool:
        """Whether each operation must do what it is expected to."""
        return not self.strikes

    def hurried(self, pod: str) -> bool:
        """Whether a call on the pod may have been given up, so that those after it can be told anything."""
        return any(operation.patience != PATIENCE for operation in self.operations[pod])


@dataclass(frozen=True)
class Round:
    """`seed` and `number` make it."""

    seed: int
    number: int
    pods: tuple[PodPlan, ...]
    acts: tuple[Act, ...]


def compose(
    seed: int,
    number: int,
    *,
    without: Collection[Fault] = (),
    apart: Mapping[Verb, Collection[Fault]] | None = None,
    pods: int = PODS,
) -> Round:
    """The round; `without` are faults that are not to strike, `apart` what is not asked for while some of them strike
    (of PAUSE alone), `pods` how many there are at most."""
    dice = random.Random(f"{seed}/{number}")
    plans = tuple(_plan(dice, f"pod{index}") for index in range(dice.randint(min(3, pods), pods)))
    deck = _deck(seed, without)
    acts = []
    whole: frozenset[str] = frozenset()
    for index in range(ACTS):
        first = deck[(number * ACTS + index) % len(deck)]
        strikes = _strikes(dice, first, [fault for fault in Fault if fault not in without])
        struck = {strike.fault for strike in strikes}
        avoided = frozenset(verb for verb, faults in (apart or {}).items() if struck & set(faults))
        operations = {plan.name: _Pod(dice, plan, plan.name in whole, avoided).operations() for plan in plans}
        removed = frozenset(plan.name for plan in plans if dice.random() < 0.25)
        whole = frozenset(plan.name for plan in plans) - removed
        acts.append(Act(operations, strikes, removed))
    return Round(seed, number, plans, tuple(acts))


def _plan(dice: random.Random, name: str) -> PodPlan:
    sidecars = SIDECARS[: dice.choice((0, 1, 1, 2))]
    return PodPlan(name, dice.choice(HANDLERS), sidecars, stubborn=dice.random() < 0.25)


def _deck(seed: int, without: Collection[Fault]) -> list[Fault | None]:
    """Every fault comes up once before any does twice; None is an act without one."""
    deck: list[Fault | None] = [fault for fault in Fault if fault not in without]
    deck += [None, None]
    random.Random(f"{seed}/deck").shuffle(deck)
    return deck


def _strikes(dice: random.Random, first: Fault | None, faults: list[Fault]) -> tuple[Strike, ...]:
    if first is None:
        return ()
    chosen = [first]
    others = [each for each in faults if GROUPS[each] != GROUPS[first] and Fault.REBOOT not in (each, first)]
    if others and dice.random() < 0.35:
        chosen.append(dice.choice(others))
    return tuple(
        Strike(fault, after=dice.uniform(0, 0.6), lasts=dice.uniform(0.05, 1.2), victim=dice.randrange(1000))
        for fault in chosen
    )


#: What is never given up: with a pod's call containerd kills the CNI plugin, which leaves its rules behind for good. An
#: exec has a time of its own.
_PATIENT = (Verb.RUN_POD, Verb.STOP_POD, Verb.REMOVE_POD, Verb.EXEC, Verb.PING)

#: Where an operation that succeeds leaves a container.
_AFTER = {
    Verb.CREATE: Life.CREATED,
    Verb.BEGIN: Life.RUNNING,
    Verb.RUN: Life.RUNNING,
    Verb.STOP: Life.EXITED,
    Verb.REMOVE: Life.ABSENT,
    Verb.PAUSE: Life.PAUSED,
    Verb.RESUME: Life.RUNNING,
    Verb.KILL: Life.EXITED,
}
_RIGHT: dict[Life, tuple[Verb, ...]] = {
    Life.ABSENT: (Verb.CREATE, Verb.RUN, Verb.RUN),
    Life.CREATED: (Verb.BEGIN, Verb.BEGIN, Verb.REMOVE),
    Life.RUNNING: (Verb.STOP, Verb.KILL, Verb.PAUSE, Verb.STATS, Verb.EXEC, Verb.REMOVE, Verb.PING),
    Life.PAUSED: (Verb.RESUME, Verb.RESUME, Verb.STOP, Verb.KILL, Verb.REMOVE),
    Life.EXITED: (Verb.RUN, Verb.RUN, Verb.CREATE, Verb.REMOVE),
}
#: containerd stops what has ended, and removes what runs, without a word.
_WRONG: dict[Life, tuple[tuple[Verb, Expected], ...]] = {
    Life.ABSENT: ((Verb.STATS, Expected.REFUSAL),),
    Life.CREATED: ((Verb.EXEC, Expected.REFUSAL), (Verb.PAUSE, Expected.REFUSAL), (Verb.STOP, Expected.EITHER)),
    Life.RUNNING: ((Verb.BEGIN, Expected.REFUSAL), (Verb.RESUME, Expected.REFUSAL)),
    Life.PAUSED: ((Verb.BEGIN, Expected.REFUSAL), (Verb.PAUSE, Expected.REFUSAL), (Verb.EXEC, Expected.REFUSAL)),
    Life.EXITED: (
        (Verb.STOP, Expected.SUCCESS),
        (Verb.BEGIN, Expected.REFUSAL),
        (Verb.EXEC, Expected.REFUSAL),
        (Verb.PAUSE, Expected.REFUSAL),
    ),
}


@dataclass
class _Pod:
    """The operations of one pod in one act, and what they would make of it."""

    dice: random.Random
    plan: PodPlan
    whole: bool
    avoided: frozenset[Verb]
    lives: dict[str, Life] = field(default_factory=dict)
    found: list[Operation] = field(default_factory=list)

    def operations(self) -> tuple[Operation, ...]:
        self.lives = dict.fromkeys(self.plan.containers, Life.RUNNING if self.whole else Life.ABSENT)
        if not self.whole:
            self._add(Verb.RUN_POD)
            for name in self.plan.containers:
                if self.dice.random() < 0.9:
                    self._do(Verb.RUN, name)
        for _ in range(self.dice.randint(1, 5)):
            self._step()
        if self.dice.random() < 0.3:
            self._end()
        return tuple(self.found)

    def _add(self, verb: Verb, container: str = "", expected: Expected = Expected.SUCCESS) -> None:
        hurry = self.dice.random() < 0.08 and verb not in _PATIENT
        patience = self.dice.choice(_HURRY) if hurry else PATIENCE
        self.found.append(Operation(verb, container, expected, patience))

    def _step(self) -> None:
        name = self.dice.choice(self.plan.containers)
        life = self.lives[name]
        if self.dice.random() < 0.2:
            if self.lives[GUEST] is Life.RUNNING and self.dice.random() < 0.3:
                self._add(Verb.SECOND_GUEST, expected=Expected.REFUSAL)
                return
            verb, expected = self.dice.choice(_WRONG[life])
            if verb not in self.avoided:
                self._add(verb, name, expected)
            return
        self._do(self.dice.choice(_RIGHT[life]), name)

    def _do(self, verb: Verb, name: str) -> None:
        if verb in self.avoided:
            verb = Verb.STATS
        if name == GUEST and verb is Verb.EXEC:
            self._add(verb, name, Expected.REFUSAL)
        elif name != GUEST and verb is Verb.PING:
            self._add(Verb.STATS, name)
        else:
            self._add(verb, name)
        self.lives[name] = _AFTER.get(verb, self.lives[name])

    def _end(self) -> None:
        """The pod is deleted, by a kubelet that may say it twice."""
        for verb in (Verb.STOP_POD, Verb.REMOVE_POD):
            self._add(verb)
            if self.dice.random() < 0.3:
                self._add(verb)
