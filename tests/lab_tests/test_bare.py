"""A bare machine: python3, sshd and apt, and nothing else until apt installs it, offline."""

from tests.lab.bare import STAGED
from tests.lab.lab import Lab
from tests.lab_tests.handmade import join

ABSENT = ("ip", "nft", "wg", "wg-quick", "wireguard-go", "sudo", "git", "make")


def test_a_bare_server_has_python_sshd_and_apt_only(lab: Lab) -> None:
    server, client = lab.add_bare_server(), lab.add_clients(1)[0]
    found = server.shell("for p in python3 sshd apt-get; do command -v $p; done").split()
    assert found == ["/usr/bin/python3", "/usr/sbin/sshd", "/usr/bin/apt-get"]
    assert server.shell(f"for p in {' '.join(ABSENT)}; do command -v $p; done; :") == ""
    assert client.ping(server.address).lost == 0


def test_a_bare_server_serves_a_client_after_an_ordinary_install(lab: Lab) -> None:
    server, client = lab.add_bare_server(), lab.add_clients(1)[0]
    server.shell("apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get install -q -y " + " ".join(STAGED))
    join(client, server)
    assert client.ping("10.1.0.1").lost == 0
    server.reboot()
    client.stream("10.1.0.1").wait_for_reply(30)


def test_a_bare_server_names_no_host_in_its_apt_settings(lab: Lab) -> None:
    server = lab.add_bare_server()
    files = "/etc/apt/sources.list /etc/apt/sources.list.d /etc/apt/apt.conf.d /etc/resolv.conf /etc/hosts"
    assert server.shell(f"grep -rE '://' {files}; :") == ""
