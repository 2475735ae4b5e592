"""Which network interface carries an address: gloo and NCCL are told names of interfaces, and Ray knows addresses."""

import array
import fcntl
import ipaddress
import socket
import struct
import sys
from pathlib import Path

SIOCGIFCONF = 0x8912  # Linux: every IPv4 address of this network namespace, and the name of its interface
IFREQ = struct.Struct("16s4x4s16x")  # name, and the address inside a sockaddr_in (netdevice(7), 64 bits)
MAX_ADDRESSES = 1024
FAR_AWAY = "192.88.99.1"  # any address beyond the network; nothing is sent to it


def own_ip() -> str:
    """The address at which other machines see this one: where a packet to far away would come from.

    Without such a route the first address that is not of the loopback; 127.0.0.1 where there is none.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((FAR_AWAY, 9))
            return str(probe.getsockname()[0])
        except OSError:
            return next((ip for ip in addresses() if not ipaddress.ip_address(ip).is_loopback), "127.0.0.1")


def interface_of(ip: str) -> str:
    """Name of the interface that carries the IPv4 or IPv6 address `ip`; empty where none of this machine's does."""
    return addresses().get(str(ipaddress.ip_address(ip.partition("%")[0])), "")


def addresses() -> dict[str, str]:
    """The interface of every address of this machine, IPv4 first; nothing where this is not Linux."""
    return _ipv4() | _ipv6() if sys.platform == "linux" else {}


def _ipv4() -> dict[str, str]:
    buffer = array.array("B", bytes(MAX_ADDRESSES * IFREQ.size))
    start, length = buffer.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket.fileno(), SIOCGIFCONF, struct.pack("iL", length, start))
    found = buffer.tobytes()[: struct.unpack("iL", answer)[0]]
    return {socket.inet_ntoa(ip): _name(label) for label, ip in IFREQ.iter_unpack(found)}


def _name(label: bytes) -> str:
    return label.partition(b"\0")[0].decode().partition(":")[0]  # a second address may be labelled eth0:1


def _ipv6() -> dict[str, str]:
    table = Path("/proc/net/if_inet6")  # address in hex, index, prefix length, scope, flags, name
    rows = [line.split() for line in table.read_text().splitlines()] if table.exists() else []
    return {str(ipaddress.IPv6Address(int(row[0], 16))): row[5] for row in rows}
