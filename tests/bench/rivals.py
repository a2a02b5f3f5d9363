"""What operators do today: Ansible and ssh in a loop, on hand-made servers, each with its own check that it worked."""

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from tests.lab.machines import Server

PLAYBOOK = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: take the peer out of the conf, line by line
      ansible.builtin.lineinfile:
        path: /etc/wireguard/wg0.conf
        regexp: '# target$'
        state: absent
    - name: make it so without an outage
      ansible.builtin.shell: wg syncconf wg0 <(wg-quick strip wg0)
      args: {{executable: /bin/bash}}
    - name: see that it is gone
      ansible.builtin.command: wg show wg0 peers
      register: peers
      changed_when: false
      failed_when: "'{key}' in peers.stdout"
"""

RAW = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: all of it in one command
      ansible.builtin.raw: |
        {command}
"""

CONFIG = """\
[defaults]
inventory={folder}/hosts
forks=50
host_key_checking=True
private_key_file={key}
interpreter_python=/usr/bin/python3
retry_files_enabled=False
[ssh_connection]
pipelining=True
ssh_args=-F /dev/null -o ControlMaster=auto -o ControlPersist=120s -o UserKnownHostsFile={known_hosts}
control_path_dir={folder}/cp
control_path=%(directory)s/%%h
"""

ANSIBLE_CORE = "ansible-core==2.19.14"


@dataclass
class Rivals:
    """The same revoke by other means. `folder` takes their files; sockets of kept connections too."""

    folder: Path
    servers: list[Server]
    ssh_key: Path
    known_hosts: Path

    def prepare(self) -> None:
        """Put Ansible in a folder of its own, kept between runs, and write its files."""
        (self.folder / "cp").mkdir(parents=True, exist_ok=True)
        if not self.ansible.exists():
            venv.create(self.ansible.parents[1], with_pip=True)
            pip = [str(self.ansible.with_name("python")), "-m", "pip", "install", "-q", ANSIBLE_CORE]
            subprocess.run(pip, check=True, stdout=sys.stderr)
        hosts = "".join(f"{s.name} ansible_host={s.address} ansible_user=root\n" for s in self.servers)
        (self.folder / "hosts").write_text(hosts)
        names = {"folder": self.folder, "key": self.ssh_key, "known_hosts": self.known_hosts}
        (self.folder / "ansible.cfg").write_text(CONFIG.format(**names))

    @property
    def ansible(self) -> Path:
        return Path("/var/tmp/muster-bench/ansible/bin/ansible-playbook")

    def play(self, text: str) -> None:
        book = self.folder / "book.yml"
        book.write_text(text)
        env = {**os.environ, "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg")}
        self._run([str(self.ansible), str(book)], env)

    def warm_ansible(self) -> None:
        self.play(RAW.format(command="true"))

    def ssh(self, command: str, *, warm: bool) -> None:
        """xargs with 50 at once; `warm` over connections that are kept open."""
        options = f"-F /dev/null -i {self.ssh_key} -o UserKnownHostsFile={self.known_hosts} -o BatchMode=yes"
        if warm:
            options += f" -o ControlMaster=auto -o ControlPersist=120s -o ControlPath={self.folder}/cp/x-%h"
        addresses = "\n".join(server.address for server in self.servers)
        line = f"xargs -P50 -I_ADDRESS_ ssh {options} root@_ADDRESS_ '{command}'"
        self._run(["bash", "-c", line], dict(os.environ), addresses)

    def close(self) -> None:
        """Ends the connections that were kept open."""
        for socket in sorted((self.folder / "cp").iterdir()):
            subprocess.run(["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "x"], capture_output=True, check=False)

    def _run(self, command: list[str], env: dict[str, str], text: str = "") -> None:
        done = subprocess.run(command, env=env, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stdout[-1500:]}{done.stderr[-500:]}")


def one_command(key: str) -> str:
    """Remove from the interface, rewrite the conf, and fail where the key is still there."""
    return (
        f'wg set wg0 peer {key} remove && umask 077 && grep -v "# target$" /etc/wireguard/wg0.conf '
        "> /etc/wireguard/.wg0 && mv /etc/wireguard/.wg0 /etc/wireguard/wg0.conf && "
        f"! wg show wg0 peers | grep -qF {key}"
    )
