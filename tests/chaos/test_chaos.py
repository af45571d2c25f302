"""Half a minute of chaos: fixed rounds, as many as there is time for. `make chaos` plays others, for hours if asked."""

from __future__ import annotations

import os
import time

import pytest

from tests.chaos import known
from tests.chaos.rounds import play
from tests.chaos.script import compose
from tests.chaos.site import site

_SEED = 4
_ROUNDS = 9  # in which every fault strikes
_BEGIN = 21.0  # seconds; a round that has begun by then ends before the thirtieth


@pytest.mark.timeout(180)
def test_the_three_views_agree_after_every_round_and_nothing_is_left() -> None:
    assert os.geteuid() == 0, "it makes namespaces and runs containerd: run it as root"
    with site() as place:
        deadline = time.monotonic() + _BEGIN
        for number in range(_ROUNDS):
            if time.monotonic() > deadline:
                break
            play(place, compose(_SEED, number, without=known.FAULTS, apart=known.apart()))
