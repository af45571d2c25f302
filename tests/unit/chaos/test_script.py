"""A round is a function of its seed and number, and asks what the kubelet may ask."""

from __future__ import annotations

from tests.chaos import known
from tests.chaos.script import ACTS, GROUPS, PATIENCE, Fault, Verb, compose

_ROUNDS = [compose(seed, number) for seed in range(10) for number in range(20)]


def test_the_same_seed_and_number_make_the_same_round() -> None:
    assert compose(3, 7) == compose(3, 7)
    assert compose(3, 7) != compose(3, 8)
    assert compose(3, 7) != compose(4, 7)


def test_every_fault_strikes_before_long() -> None:
    for seed in range(10):
        rounds = [compose(seed, number) for number in range((len(Fault) + 2) // ACTS)]
        assert {strike.fault for each in rounds for act in each.acts for strike in act.strikes} == set(Fault)


def test_faults_that_are_left_out_do_not_strike() -> None:
    left_out = {Fault.REBOOT, Fault.DISK_FULL}
    rounds = [compose(1, number, without=left_out) for number in range(100)]
    assert not left_out & {strike.fault for each in rounds for act in each.acts for strike in act.strikes}


def test_what_is_to_be_apart_is() -> None:
    apart = {Verb.PAUSE: frozenset({Fault.DAEMON_KILLED})}
    rounds = [compose(1, number, apart=apart) for number in range(200)]
    assert any(_asks(each.acts, Verb.PAUSE) for each in rounds)
    struck = [act for each in rounds for act in each.acts if Fault.DAEMON_KILLED in {s.fault for s in act.strikes}]
    assert struck
    assert not _asks(struck, Verb.PAUSE)


def _asks(acts: object, verb: Verb) -> bool:
    return any(asked.verb is verb for act in acts for asking in act.operations.values() for asked in asking)  # type: ignore[attr-defined]


def test_faults_of_one_act_do_not_undo_each_other() -> None:
    for act in (act for each in _ROUNDS for act in each.acts):
        groups = [GROUPS[strike.fault] for strike in act.strikes]
        assert len(set(groups)) == len(groups)
        assert len(groups) == 1 or Fault.REBOOT not in {strike.fault for strike in act.strikes}


def test_there_are_acts_in_which_nothing_strikes_and_every_verb_is_asked() -> None:
    acts = [act for each in _ROUNDS for act in each.acts]
    assert any(act.calm for act in acts)
    assert {asked.verb for act in acts for asking in act.operations.values() for asked in asking} == set(Verb)


def test_a_pod_begins_with_its_sandbox() -> None:
    for each in _ROUNDS:
        for operations in each.acts[0].operations.values():
            assert operations[0].verb is Verb.RUN_POD


def test_most_calls_are_patient() -> None:
    asked = [each for a in _ROUNDS for act in a.acts for asking in act.operations.values() for each in asking]
    hurried = sum(each.patience != PATIENCE for each in asked)
    assert 0.01 < hurried / len(asked) < 0.1


def test_what_is_left_out_has_a_reason() -> None:
    reasons = [*known.FAULTS.values(), *(why for _, why in known.APART.values()), *known.GHOSTS.values()]
    assert all(len(why) > 20 for why in reasons)
