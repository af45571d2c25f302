"""The configuration and the daemon: whether the one loads, whether the other answers, as whom, and to whom."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import grpc
import msgspec

from shim import __version__, config
from shim.config import Config
from shim.doctor.finding import AS_ROOT, Area, Finding, Outcome, unseen
from shim.errors import InvalidRequest
from shim.rpc import unix
from shim.wire import inspection_pb2 as pb

_TIMEOUT = 3.0  # seconds; a daemon that works answers within milliseconds
_ABOUT = f"/{pb.DESCRIPTOR.services_by_name['Inspection'].full_name}/About"
_START = "systemctl enable --now unikernel-shim"


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """`socket` says what is at its path: "none", "closed" to us, "dead", "no socket", or "alive". `mode` and `owner`
    are its own; `version` is the daemon's, "" for one too old to say; `refusal` what it said instead of answering."""

    path: Path
    socket: str
    mode: int = 0
    owner: int = 0
    version: str = ""
    refusal: str = ""


def read(path: Path | None) -> tuple[Config, Finding]:
    """The configuration, and what is to be said of it: one that cannot be read is judged by the defaults' lights."""

    def finding(outcome: Outcome, what: str, why: str = "", fix: str = "") -> Finding:
        return Finding(area=Area.SERVICE, subject="configuration", outcome=outcome, what=what, why=why, fix=fix)

    named = config.named(path)
    try:
        found = config.load(path)
    except InvalidRequest as error:
        if named.exists() and not os.access(named, os.R_OK):
            return Config(), unseen(Area.SERVICE, "configuration", f"{named} cannot be read", AS_ROOT)
        why = "the service does not start with it; the defaults are looked at instead"
        return Config(), finding(Outcome.BAD, str(error), why, f"mend {named}; unikernel-shim --config {named} config")
    return found, finding(Outcome.GOOD, f"{named} loads" if named.exists() else f"no {named}, so the defaults")


async def observe(found: Config) -> Service:
    """Ask the node's daemon who it is."""
    seen = await asyncio.to_thread(_socket, found.grpc_socket)
    return await _ask(seen) if seen.socket == "alive" else seen


def _socket(path: Path) -> Service:
    try:
        status = path.stat()
    except FileNotFoundError:
        return Service(path=path, socket="none")
    except PermissionError:
        return Service(path=path, socket="closed")
    try:
        what = ("alive" if unix.answers(path) else "dead") if stat.S_ISSOCK(status.st_mode) else "no socket"
    except PermissionError:
        what = "closed"
    return Service(path=path, socket=what, mode=stat.S_IMODE(status.st_mode), owner=status.st_uid)


async def _ask(seen: Service) -> Service:
    async with grpc.aio.insecure_channel(f"unix:{seen.path}") as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[pb.AboutRequest, pb.AboutResponse] = channel.unary_unary(
            _ABOUT,
            request_serializer=pb.AboutRequest.SerializeToString,
            response_deserializer=pb.AboutResponse.FromString,
        )
        try:
            answer = await call(pb.AboutRequest(), timeout=_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:  # of before there was this call
                return seen
            return msgspec.structs.replace(seen, refusal=f"{error.code().name}: {error.details()}")
    return msgspec.structs.replace(seen, version=answer.version)


def judge(service: Service, demanded: bool) -> list[Finding]:
    """`demanded` is whether pods need a daemon that runs, since containerd calls its socket; where couriers are called,
    they start one."""
    return [_daemon(service, demanded), *_access(service)]


def _finding(subject: str, outcome: Outcome, what: str, why: str = "", fix: str = "") -> Finding:
    return Finding(area=Area.SERVICE, subject=subject, outcome=outcome, what=what, why=why, fix=fix)


def _daemon(service: Service, demanded: bool) -> Finding:
    if service.socket == "closed":
        return unseen(Area.SERVICE, "daemon", f"{service.path} is root's, and this is not root", AS_ROOT)
    if service.socket == "no socket":
        why = "the service does not start while that is there"
        return _finding(
            "daemon", Outcome.BAD, f"{service.path} is no socket", why, f"mv {service.path} /root; {_START}"
        )
    if service.socket in ("none", "dead"):
        what = "it does not run" if service.socket == "none" else f"it died, and left {service.path}"
        if demanded:
            why = "containerd asks it for each pod, over its socket"
            return _finding("daemon", Outcome.BAD, what, why, _START)
        why = "the shim binary starts it with the first pod, which waits for that, without systemd to look after it"
        return _finding("daemon", Outcome.DOUBTFUL, what, why, _START)
    if service.refusal:
        why = "a daemon that does not answer this answers no pod"
        fix = "systemctl restart unikernel-shim; journalctl -u unikernel-shim"
        return _finding("daemon", Outcome.BAD, f"it is connected to, and does not answer: {service.refusal}", why, fix)
    if service.version != __version__:
        what = f"{service.version or 'an older version'} runs, and {__version__} is installed"
        why = "pods get what the one that runs can do"
        return _finding("daemon", Outcome.DOUBTFUL, what, why, "systemctl restart unikernel-shim")
    return _finding("daemon", Outcome.GOOD, f"{service.version} answers on {service.path}")


def _access(service: Service) -> list[Finding]:
    if service.socket != "alive" or (service.owner == 0 and not service.mode & 0o077):
        return []
    what = f"mode {service.mode:04o}, of user {service.owner}"
    why = "whoever can open it has all pods of the node in hand"
    fix = f"chown root {service.path} && chmod 0600 {service.path}"
    return [_finding("socket", Outcome.DOUBTFUL, what, why, fix)]
