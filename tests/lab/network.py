"""Hosts that are network namespaces on one bridge, and a resolver that all of them ask.

`within_a_network` starts the script again in namespaces of its own: what is made there (bridge, addresses, the names of
namespaces, resolv.conf) is nobody else's, and is gone with the process, whatever ends it.
"""

import itertools
import os
import pathlib
import subprocess
import sys

from .dns import Dns
from .processes import NotHere, tool

_INSIDE = "RAFTHTTP_LAB_NETWORK"
_GATEWAY = "10.77.0.1"
# As in a pod.
_RESOLV_CONF = f"nameserver {_GATEWAY}\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"


def within_a_network():
    """Goes on in a network of its own. Returns only there; raises NotHere where that is not permitted."""
    if os.environ.get(_INSIDE):
        return
    if os.geteuid() != 0:
        raise NotHere("only root may make network namespaces")
    ip = tool("iproute2")
    tried = subprocess.run(["unshare", "--net", "--mount", ip, "link", "set", "lo", "up"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        raise NotHere(f"no network namespaces here: {tried.stderr.strip()}")
    sys.stdout.flush()
    os.execvpe("unshare", ["unshare", "--net", "--mount", sys.executable, *sys.argv], {**os.environ, _INSIDE: ip})


class Network:
    """The bridge, and a DNS server on it (`dns`). This process stands on the bridge and reaches every host."""

    def __init__(self, lab):
        self._numbers, self._given, self._hosts = itertools.count(1), itertools.count(), []
        run = pathlib.Path("/run/netns")
        run.mkdir(exist_ok=True)
        _run("mount", "-t", "tmpfs", "tmpfs", run)
        self._lab, self._conf = lab, lab.path("resolv.conf")
        conf = self._conf
        conf.write_text(_RESOLV_CONF)
        _run("mount", "--bind", conf, "/etc/resolv.conf")
        ip("link", "set", "lo", "up")
        ip("link", "add", "br0", "type", "bridge")
        ip("address", "add", f"{_GATEWAY}/16", "dev", "br0")
        ip("link", "set", "br0", "up")
        self.has_ipv6 = pathlib.Path("/proc/sys/net/ipv6/conf/br0/disable_ipv6").exists()
        if self.has_ipv6:
            pathlib.Path("/proc/sys/net/ipv6/conf/br0/disable_ipv6").write_text("0")
            ip("address", "add", "fd77::1/64", "dev", "br0", "nodad")
        self.dns = lab.owns(Dns(_GATEWAY))

    def asks_another_dns(self):
        """From now on resolv.conf names another server, which knows the same names; `dns` goes on, and is the other's no more."""
        address = "10.77.0.2"
        ip("address", "add", f"{address}/16", "dev", "br0")
        old, self.dns = self.dns, self._lab.owns(Dns(address))
        self.dns.names = old.names
        # In place, as what is bound over /etc/resolv.conf is this file.
        self._conf.write_text(_RESOLV_CONF.replace(_GATEWAY, address))
        return old

    def host(self):
        """A namespace with an address of its own."""
        host = Host(self, next(self._numbers))
        self._hosts.append(host)
        return host

    def address(self):
        """An address that nobody has had."""
        number = next(self._given)
        return f"10.77.{number // 200}.{number % 200 + 10}"

    def take(self, address):
        """Whoever had the address, it is ours from now on: who still speaks to it speaks to us."""
        ip("address", "add", f"{address}/32", "dev", "br0")
        # As a gratuitous ARP would have it.
        for host in self._hosts:
            ip("-netns", host.namespace, "neighbour", "flush", "to", address)

    def leave(self, address):
        ip("address", "del", f"{address}/32", "dev", "br0")


class Host:
    """A namespace: what runs in it has its address, and no other."""

    def __init__(self, network, number):
        self._network, self.namespace, self.ipv6 = network, f"h{number}", None
        ip("netns", "add", self.namespace)
        ip("link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        ip("link", "set", f"v{number}", "master", "br0", "up")
        self._inside("link", "set", "lo", "up")
        self._inside("link", "set", "eth0", "up")
        self.address = None
        self.move()
        if network.has_ipv6:
            _run(*self.run(["sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6"]))
            self.ipv6 = f"fd77::{number:x}:1"
            self._inside("address", "add", f"{self.ipv6}/64", "dev", "eth0", "nodad")

    def move(self):
        """Takes a new address; the old one is nobody's. Returns the old one. Names are the test's to change."""
        old, self.address = self.address, self._network.address()
        if old:
            self._inside("address", "del", f"{old}/16", "dev", "eth0")
        self._inside("address", "add", f"{self.address}/16", "dev", "eth0")
        return old

    def swallow(self, address):
        """What this host sends to the address goes nowhere, and nothing says so."""
        self._inside("neighbour", "replace", address, "lladdr", "02:00:00:00:00:01", "dev", "eth0", "nud", "permanent")

    def run(self, arguments):
        """The command line that runs a program in here."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *arguments]

    def _inside(self, *arguments):
        ip("-netns", self.namespace, *arguments)


def ip(*arguments):
    _run(os.environ[_INSIDE], *arguments)


def _run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr.strip()}"
