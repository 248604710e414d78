"""A small network laboratory for one Linux machine, for tests that break the network between real daemons.

Every node is a network namespace with a TAP device; a switch in a process of its own moves the frames and
applies loss, delay, jitter, duplication, reordering and partitions to each ordered pair of nodes. It needs
root, iproute2 and, for address translation, nftables; it needs no traffic control in the kernel and leaves
nothing behind.
"""

import ctypes
import fcntl
import heapq
import json
import os
import random
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

_RUN = Path("/run/meshllm-lab")
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_UNIMPAIRED: dict[str, float] = {
    "loss": 0.0, "delay": 0.0, "jitter": 0.0, "dup": 0.0, "reorder": 0.0, "cut": 0.0,
}  # fmt: skip
_FRAMES_HELD = 2000
_ANSWER_S = 5
NAT_KINDS = ("cone", "sym", "full", "noudp")


def missing() -> str:
    """Return why there can be no laboratory here, or nothing."""
    if not Path("/dev/net/tun").exists():
        return "this machine has no TAP devices"
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "nft"):
        if shutil.which(program) is None:
            return f"the program {program} is not installed (packages iproute2 and nftables)"
    name = f"probe{os.getpid()}"
    probe = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return f"no network namespaces: {probe.stderr.strip()}" if probe.returncode else ""


def _sh(script: str, stdin: str | None = None) -> None:
    done = subprocess.run(["sh", "-ec", script], text=True, input=stdin, capture_output=True, check=False)
    if done.returncode:
        msg = f"{script!r} failed: {done.stderr.strip()}"
        raise RuntimeError(msg)


def _open_tap(namespace: str) -> int:
    """Create a TAP device inside a namespace and return its descriptor."""
    libc = ctypes.CDLL(None, use_errno=True)
    old, new = os.open("/proc/self/ns/net", os.O_RDONLY), os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if libc.setns(new, 0):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", b"eth0", _IFF_TAP | _IFF_NO_PI))
        return descriptor
    finally:
        libc.setns(old, 0)
        os.close(old)
        os.close(new)


class _Link:
    """What happens to frames from one node to another. Shares in percent, times in milliseconds."""

    def __init__(self) -> None:
        self.set = dict(_UNIMPAIRED)
        self.held = 0


class _Switch:
    """Learns addresses, floods multicast, impairs each ordered pair."""

    def __init__(self, taps: dict[str, int], control: socket.socket, seed: int) -> None:
        self.taps = taps
        self.control = control
        self.rng = random.Random(seed)
        self.links = {(a, b): _Link() for a in taps for b in taps if a != b}
        self.macs: dict[bytes, str] = {}
        self.later: list[tuple[float, int, _Link, str, bytes]] = []
        self.count = 0

    def run(self) -> None:
        """Move frames for ever."""
        selector = selectors.EpollSelector()
        for name, tap in self.taps.items():
            selector.register(tap, selectors.EVENT_READ, name)
        selector.register(self.control, selectors.EVENT_READ, None)
        while True:
            wait_s = max(0.0, self.later[0][0] - time.monotonic()) if self.later else None
            for key, _ in selector.select(wait_s):
                if key.data is None:
                    self._obey()
                else:
                    self._read(key.data, key.fd)
            self._deliver_due()

    def _read(self, source: str, tap: int) -> None:
        for _ in range(64):
            try:
                frame = os.read(tap, 65536)
            except BlockingIOError:
                return
            now_s, known = time.monotonic(), self.macs.get(frame[:6])
            self.macs[frame[6:12]] = source
            for target in [known] if known else self.taps:
                if target != source:
                    self._send(source, target, frame, now_s)

    def _send(self, source: str, target: str, frame: bytes, now_s: float) -> None:
        link, chance = self.links[source, target], self.rng.random
        rules = link.set
        if rules["cut"] or link.held >= _FRAMES_HELD or chance() * 100 < rules["loss"]:
            return
        due_s = now_s
        if chance() * 100 >= rules["reorder"]:  # a reordered frame jumps the delay
            due_s += max(0.0, rules["delay"] + rules["jitter"] * (2 * chance() - 1)) / 1e3
        for _ in range(2 if chance() * 100 < rules["dup"] else 1):
            if due_s <= now_s:
                self._write(target, frame)
                continue
            self.count += 1
            link.held += 1
            heapq.heappush(self.later, (due_s, self.count, link, target, frame))

    def _deliver_due(self) -> None:
        now_s = time.monotonic()
        while self.later and self.later[0][0] <= now_s:
            _, _, link, target, frame = heapq.heappop(self.later)
            link.held -= 1
            if not link.set["cut"]:
                self._write(target, frame)

    def _write(self, target: str, frame: bytes) -> None:
        try:
            os.write(self.taps[target], frame)
        except OSError:
            return  # a full queue or an interface that is down: the frame is lost, as on a wire

    def _obey(self) -> None:
        data, peer = self.control.recvfrom(1 << 20)
        order = json.loads(data)
        for source, target in order["pairs"]:
            self.links[source, target].set.update(order["set"])
        self.control.sendto(b"{}", peer)


class Lab:
    """Builds, drives and removes one laboratory. `nats` entries are `router:kind:client,client`."""

    def __init__(self, name: str, nodes: Sequence[str], nats: Iterable[str] = (), seed: int = 1) -> None:
        """Give the nodes addresses 10.99.0.x; clients of a router 192.168.101.x and so on."""
        self.name = name
        self.nodes = list(nodes)
        self.seed = seed
        self.nats = [(parts[0], parts[1], parts[2].split(",")) for parts in (entry.split(":") for entry in nats)]
        self.wan = self.nodes + [router for router, _, _ in self.nats]
        self.ips = {node: f"10.99.0.{number}" for number, node in enumerate(self.wan, 1)}
        for number, (_, _, clients) in enumerate(self.nats, 1):
            self.ips |= {client: f"192.168.{100 + number}.{10 + place}" for place, client in enumerate(clients)}
        self.folder = _RUN / name
        self._switch = 0

    def __enter__(self) -> Self:
        """Build it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End every process inside and remove it."""
        self._remove()

    def namespace(self, node: str) -> str:
        """Return the name of a node's namespace."""
        return f"{self.name}-{node}"

    def inside(self, node: str, command: Sequence[str]) -> list[str]:
        """Return a command line that runs a command at a node."""
        return ["ip", "netns", "exec", self.namespace(node), *command]

    def connect(self, node: str, port: int, timeout_s: float) -> socket.socket:
        """Return a connection to a port of a node's loopback, made inside its namespace. Raises OSError."""
        with ThreadPoolExecutor(1) as thread:  # a namespace is a thread's
            return thread.submit(self._connect, node, port, timeout_s).result()

    def _connect(self, node: str, port: int, timeout_s: float) -> socket.socket:
        space = os.open(f"/run/netns/{self.namespace(node)}", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(space, 0):
                raise OSError(ctypes.get_errno(), f"setns {node}")
        finally:
            os.close(space)
        return socket.create_connection(("127.0.0.1", port), timeout_s)

    def impair(self, source: str, target: str, **values: float) -> None:
        """Impair one direction; `*` stands for every node on the wide network."""
        sources, targets = (self.wan if end == "*" else [end] for end in (source, target))
        self._order({(a, b) for a in sources for b in targets if a != b}, values)

    def cut(self, *groups: Sequence[str]) -> None:
        """Lose every frame between nodes of different groups."""
        group_of = {node: number for number, group in enumerate(groups) for node in group}
        self._order({(a, b) for a in group_of for b in group_of if group_of[a] != group_of[b]}, {"cut": 1.0})

    def heal(self) -> None:
        """Undo every impairment and cut."""
        self._order({(a, b) for a in self.wan for b in self.wan if a != b}, _UNIMPAIRED)

    def _order(self, pairs: set[tuple[str, str]], values: dict[str, float]) -> None:
        unknown = set(values) - set(_UNIMPAIRED)
        if unknown:
            msg = f"there is no impairment {unknown}"
            raise ValueError(msg)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
            here = self.folder / f"asking-{os.getpid()}"
            asking.bind(str(here))
            try:
                asking.settimeout(_ANSWER_S)
                asking.sendto(
                    json.dumps({"pairs": sorted(pairs), "set": values}).encode(), str(self.folder / "control")
                )
                asking.recv(1 << 16)
            finally:
                here.unlink()

    def _build(self) -> None:
        for node in self.ips:
            _sh(f"ip netns add {self.namespace(node)}; ip -n {self.namespace(node)} link set lo up")
        control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        control.bind(str(self.folder / "control"))
        taps = {node: _open_tap(self.namespace(node)) for node in self.wan}
        for node in self.wan:
            space = self.namespace(node)
            _sh(
                f"ip -n {space} addr add {self.ips[node]}/24 dev eth0; ip -n {space} link set eth0 up;"
                f"ip -n {space} route add default dev eth0"
            )
        for number, (router, kind, clients) in enumerate(self.nats, 1):
            self._build_nat(number, router, kind, clients)
        self._switch = self._fork_switch(taps, control)
        for tap in taps.values():
            os.close(tap)
        control.close()

    def _fork_switch(self, taps: dict[str, int], control: socket.socket) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:  # the child: never comes back
            os.setsid()
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            _Switch(taps, control, self.seed).run()
        finally:
            os._exit(1)

    def _build_nat(self, number: int, router: str, kind: str, clients: list[str]) -> None:
        space, network = self.namespace(router), f"192.168.{100 + number}"
        _sh(
            f"ip -n {space} link add lan type bridge; ip -n {space} addr add {network}.1/24 dev lan;"
            f"ip -n {space} link set lan up; ip netns exec {space} sysctl -qw net.ipv4.ip_forward=1"
        )
        for place, client in enumerate(clients):
            inside = self.namespace(client)
            _sh(
                f"ip link add eth0 netns {inside} type veth peer name p{place} netns {space};"
                f"ip -n {space} link set p{place} master lan up;"
                f"ip -n {inside} addr add {self.ips[client]}/24 dev eth0;"
                f"ip -n {inside} link set eth0 up; ip -n {inside} route add default via {network}.1"
            )
        masquerade = "masquerade fully-random" if kind == "sym" else "masquerade"
        forward = f"iifname eth0 udp dport 1024-65535 dnat to {self.ips[clients[0]]}" if kind == "full" else ""
        no_udp = "meta l4proto udp drop" if kind == "noudp" else ""
        _sh(
            f"ip netns exec {space} nft -f -",
            f"""table ip lab {{
                chain forward {{ type filter hook forward priority 0; policy accept;
                    {no_udp}
                    ct status dnat accept
                    iifname eth0 ct state new drop
                }}
                chain input {{ type filter hook input priority 0; policy accept;
                    iifname eth0 ct state new drop
                }}
                chain prerouting {{ type nat hook prerouting priority -100;
                    {forward}
                }}
                chain postrouting {{ type nat hook postrouting priority 100;
                    oifname eth0 {masquerade}
                }}
            }}
            """,
        )

    def forget_mappings(self, router: str) -> None:
        """Make a router forget whom it translates; with `sym`, its clients then appear under other ports."""
        _sh(f"ip netns exec {self.namespace(router)} conntrack -F")

    def _remove(self) -> None:
        if self._switch:
            os.kill(self._switch, signal.SIGKILL)
            os.waitpid(self._switch, 0)
            self._switch = 0
        for node in self.ips:
            space = self.namespace(node)
            found = subprocess.run(["ip", "netns", "pids", space], text=True, capture_output=True, check=False)
            for pid in found.stdout.split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, node: str, command: Sequence[str]) -> "subprocess.CompletedProcess[Any]":
        """Run a command at a node to its end."""
        return subprocess.run(self.inside(node, command), text=True, capture_output=True, check=False)
