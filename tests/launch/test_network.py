import socket
import subprocess
import sys

import psutil
import pytest

from grndist.launch.network import addresses, interface_of, own_ip

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="addresses are read as Linux gives them")


def test_the_loopback_address_is_on_the_loopback_interface():
    assert interface_of("127.0.0.1") == "lo"


def test_an_address_that_no_interface_carries_has_none():
    assert interface_of("203.0.113.77") == ""


def test_what_is_no_address_is_refused():
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
        interface_of("localhost")


def test_every_address_is_found_as_psutil_finds_it():
    known = {
        address.address.partition("%")[0]: name
        for name, own in psutil.net_if_addrs().items()
        for address in own
        if address.family in (socket.AF_INET, socket.AF_INET6)
    }
    assert addresses() == known


def test_the_own_address_is_on_an_interface_of_this_machine():
    assert interface_of(own_ip())


WITHOUT_A_WAY_OUT = """
ip link set lo up && ip address add 10.1.2.3/24 dev lo && ip address add 10.1.2.4/24 dev lo label lo:second &&
exec {python} -c "
from grndist.launch.network import interface_of, own_ip
print(own_ip(), interface_of('10.1.2.3'), interface_of('10.1.2.4'))"
"""


def test_in_a_network_without_a_way_out_the_own_address_and_second_ones_are_found():
    script = WITHOUT_A_WAY_OUT.format(python=sys.executable)
    new_network = ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*new_network, "ip", "link"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespace can be made here")
    done = subprocess.run([*new_network, "bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["10.1.2.3", "lo", "lo"]
