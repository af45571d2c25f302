"""`unikernel-shim serve` with a configuration of its own, on a node of ours."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.integration import acceleration, paths, tender_double
from tests.integration import doubles as monitors
from tests.integration.node import Node
from tests.integration.process import Server, answers


class Daemon(Server):
    """The daemon. `start` waits for both of its doors."""

    def __init__(
        self,
        node: Node,
        *,
        name: str = "daemon",
        more: str = "",
        env: Mapping[str, str] | None = None,
        grouping: str = "node",
        production: bool = False,
        doubles: bool = True,
        program: Sequence[str] = (str(paths.DAEMON),),
    ) -> None:
        """`more` is TOML put behind the node's own settings, `env` goes into its environment, `grouping` is what
        couriers go by. In `production` it logs little, and has no metrics. Without `doubles` it has the monitors of
        the machine, and no doubles of those. `program` is what it runs as."""
        self.run_dir = node.base / "run"
        self.storage = node.base / "storage"
        self.config = node.base / f"{name}.toml"
        settings = configuration(node, self.run_dir, production=production, doubles=doubles)
        self.config.write_text(f'grouping = "{grouping}"\n{settings}{more}')
        command = [*program, "serve"]
        super().__init__(node, name, command, self.run_dir / "shim.sock", {**environment(self.config), **(env or {})})
        place()
        acceleration.lend(self.run_dir)

    def listens(self) -> bool:
        """At both doors: they open one after the other."""
        return answers(self.socket) and answers(self.ttrpc_socket)

    def stop(self, *, within: float = 10.0) -> int:
        """As any server's; what it found out of the machine is kept."""
        acceleration.keep(self.run_dir)
        return super().stop(within=within)

    @property
    def ttrpc_socket(self) -> Path:
        """The door for containerd's `start` path and the courier."""
        return self.run_dir / "shim.ttrpc"


def configuration(node: Node, run_dir: Path, *, production: bool = False, doubles: bool = True) -> str:
    """The node's settings as TOML: top-level keys, the tables `storage` and `containerd`; but in `production` `log` and
    `metrics`, and with `doubles` `monitors` but for `qemu`."""
    tests = f"""\
[log]
level = "debug"
format = "json"

[metrics]
listen = "unix:{run_dir / "metrics.sock"}"
"""
    places = tender_double.configuration(node.base) + monitors.configuration(node.base) if doubles else ""
    return f"""\
run_dir = "{run_dir}"

{"" if production else tests}
[storage]
directory = "{node.base / "storage"}"

[containerd]
address = "{node.base / "containerd.sock"}"
{places}"""


def environment(config: Path) -> dict[str, str]:
    """What makes the daemon, and a courier run by containerd, read `config`."""
    return {"UNIKERNEL_SHIM_CONFIG": str(config), "PYTHONDONTWRITEBYTECODE": "", "PYTHONASYNCIODEBUG": ""}


def place() -> None:
    """Bring .venv/bin's two programs up to date with the checkout: a stale courier tests nothing."""
    script = paths.ROOT / "contrib" / "install" / "place.sh"
    subprocess.run([str(script), "--checkout", str(paths.ROOT), str(paths.BIN)], check=True)
