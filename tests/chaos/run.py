"""`make chaos`: rounds until the time is over or one fails; says how to have that one again.

python -m tests.chaos.run --seconds 3600 --seed 7
python -m tests.chaos.run --seed 7 --round 12 --times 5     # that round alone, five times
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time

from tests.chaos import known
from tests.chaos.rounds import Broken, play
from tests.chaos.script import PODS, Fault, compose
from tests.chaos.site import site


def main() -> int:
    """The exit code: 1 where a round failed."""
    options = argparse.ArgumentParser(prog="chaos", description=__doc__)
    options.add_argument("--seconds", type=float, default=600, help="begin no round after so long")
    options.add_argument("--seed", type=int, default=None, help="by default another one each time")
    options.add_argument("--round", type=int, default=None, help="this one alone")
    options.add_argument("--times", type=int, default=1, help="how often, with --round")
    options.add_argument("--pods", type=int, default=PODS, help="how many at once, at most")
    options.add_argument(
        "--only", type=Fault, action="append", help="faults that strike; by default all but known.py's"
    )
    options.add_argument("--everything", action="store_true", help="what known.py lists, too")
    options.add_argument("--keep-going", action="store_true", help="go on with a new site after a failure")
    options.add_argument("--verbose", action="store_true", help="tell each round's story")
    given = options.parse_args()
    seed = random.randrange(1 << 31) if given.seed is None else given.seed
    without = [fault for fault in Fault if fault not in given.only] if given.only else list(known.FAULTS)
    apart = {} if given.everything else known.apart()
    if given.everything:
        without = [fault for fault in without if fault not in known.FAULTS]
    else:
        _tell_known()
    numbers = itertools.count() if given.round is None else iter([given.round] * given.times)
    deadline = time.monotonic() + given.seconds
    failed = played = 0
    ended = False
    while not ended and (given.keep_going or not failed):
        with site() as place:
            for number in numbers:
                if time.monotonic() > deadline:
                    ended = True
                    break
                script = compose(seed, number, without=without, apart=apart, pods=given.pods)
                strikes = [str(strike.fault) for act in script.acts for strike in act.strikes]
                began = time.monotonic()
                print(f"seed {seed} round {number}: {', '.join(strikes) or 'calm'}", end="", flush=True)
                played += 1
                try:
                    tell = play(place, script)
                except Broken as error:
                    failed += 1
                    print(f": FAILED\n{error}", flush=True)
                    break
                print(f": {time.monotonic() - began:.1f} s", flush=True)
                if given.verbose:
                    print("\n".join(tell.lines))
            else:
                ended = True
    print(f"{played} rounds, {failed} failed")
    return 1 if failed else 0


def _tell_known() -> None:
    for fault, why in known.FAULTS.items():
        print(f"does not strike: {fault}: {why}")
    for verb, (faults, why) in known.APART.items():
        print(f"is not asked for: {verb} while one of these strikes: {', '.join(sorted(faults))}: {why}")


if __name__ == "__main__":
    sys.exit(main())
