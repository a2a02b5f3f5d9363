"""The main job before your eyes: `python -m tests.lab.demo [--once]`, as root, on machines it makes for the purpose.

All that happens, happens by the API of a Console that `manage.py up` runs; what is true is judged by packets.
"""

import argparse
import datetime as dt
import queue
import secrets
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.api_client import Api, Refused
from tests.lab.commands import LabError
from tests.lab.lab import Lab, missing
from tests.lab.machines import Client, Server
from tests.lab.packets import Stream
from tests.lab.tunnels import KeyPair, new_keypair
from tests.running import RunningConsole, free_port, is_free

PORT = 8000
PLACES = {"vpn-ams": "staging", "vpn-fra": "staging", "vpn-sgp": "production"}
# Who is on which client, and what they are granted.
PEOPLE = {
    "carol": ("Carol", "contractor", ("staging", "production")),
    "dave": ("Dave", "employee", ("staging", "production")),
    "erin": ("Erin", "employee", ("staging",)),
    "frank": ("Frank", "employee", ("production",)),
}
SHUT_WITHIN = 1.0
WATCH = 3.0
PASTE = "PASTE-THE-PRIVATE-KEY-OF-THIS-DEVICE-HERE"


class Story:
    """Prints what happens with the time since the start, and keeps whether all of it held."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.held = True

    def tell(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:6.2f} s] {text}", flush=True)

    def check(self, is_so: bool, text: str) -> None:
        self.tell(f"  {'ok ' if is_so else 'NO '} {text}")
        self.held = self.held and is_so


@dataclass
class Tunnel:
    """One client's way through one server."""

    server: str
    interface: str
    gateway: str


@dataclass
class Holder:
    """A person at a client of the lab."""

    client: Client
    pair: KeyPair
    person: int = 0
    device: int = 0
    tunnels: list[Tunnel] = field(default_factory=list)


class Demo:
    """One run over one lab and one Console."""

    def __init__(self, lab: Lab, api: Api, story: Story) -> None:
        self._lab, self._api, self._story = lab, api, story
        self._servers: dict[str, int] = {}
        self._environments: dict[str, int] = {}
        self._holders: dict[str, Holder] = {}

    def play(self) -> None:
        self._make_machines()
        self._enrol()
        self._issue()
        self._connect()
        self._revoke()

    def _make_machines(self) -> None:
        machines = self._lab.add_servers(len(PLACES), names=list(PLACES))
        clients = self._lab.add_clients(len(PEOPLE), names=list(PEOPLE))
        self._holders = {client.name: Holder(client, new_keypair()) for client in clients}
        self._story.tell(f"{len(machines)} servers and {len(clients)} clients are switched on")

    def _enrol(self) -> None:
        names = sorted(set(PLACES.values()))
        self._environments = {name: self._api.post("environments", name=name)["id"] for name in names}
        machines = self._lab.of(Server)
        for number, machine in enumerate(machines, 1):
            self._servers[machine.name] = self._add_server(machine, number)
        with ThreadPoolExecutor(len(machines)) as pool:
            list(pool.map(self._enrol_one, machines))

    def _add_server(self, machine: Server, number: int) -> int:
        row = self._api.post(
            "servers",
            name=machine.name,
            environment=self._environments[PLACES[machine.name]],
            host=machine.address,
            endpoint_host=machine.address,
            ipv4_pool=f"10.{number}.0.0/16",
            ipv6_pool=f"fd00:{number}::/64",
        )
        return int(row["id"])

    def _enrol_one(self, machine: Server) -> None:
        """The login goes to the web, which can only box it for the workers; it is used once."""
        login = {"user": "root", "private_key": self._lab.ssh_key.read_text()}
        path = f"servers/{self._servers[machine.name]}/enrol"
        asked = self._api.post(path, host_key=machine.host_key_fingerprint, **login)
        told = 0

        def is_over(row: Any) -> bool:
            nonlocal told
            lines = row["progress"].splitlines()
            for line in lines[told:]:
                self._story.tell(f"  {machine.name}: {line}")
            told = len(lines)
            return bool(row["finished_at"])

        row = self._api.wait_until(f"enrolments/{asked['id']}", is_over, 180, f"the enrolment of {machine.name}")
        self._story.check(row["state"] == "done", f"{machine.name} ({PLACES[machine.name]}) enrolled {row['error']}")
        # As a systemd would; the machines of the lab have none that runs.
        machine.shell("systemctl start muster-node")

    def _issue(self) -> None:
        until = (dt.datetime.now(dt.UTC) + dt.timedelta(days=30)).isoformat()
        for key, (name, kind, places) in PEOPLE.items():
            holder = self._holders[key]
            holder.person = self._api.post("people", name=name, kind=kind)["id"]
            for place in places:
                environment = self._environments[place]
                self._api.post(
                    "grants", person=holder.person, environment=environment, until=until, reason="project work"
                )
            public_key = holder.pair.public_key
            holder.device = self._api.post("devices", person=holder.person, name="laptop", public_key=public_key)["id"]
            self._story.tell(f"{name} ({kind}) may use {' and '.join(places)}; the key was made on the laptop")
        for name, pk in self._servers.items():
            self._api.wait_until(
                f"servers/{pk}", lambda row: row["observed_generation"] >= row["generation"], 30, f"{name} to follow"
            )
        self._story.tell("every server has read its peers back")

    def _connect(self) -> None:
        for key in PEOPLE:
            self._connect_one(self._holders[key])
        seen = sum(len(holder.tunnels) for holder in self._holders.values())
        self._story.check(
            seen == self._expected(), f"{seen} tunnels of {self._expected()} shook hands and answer pings"
        )
        self._wait_for_page()

    def _expected(self) -> int:
        return sum(place in places for _, _, places in PEOPLE.values() for place in PLACES.values())

    def _connect_one(self, holder: Holder) -> None:
        for number, peer in enumerate(self._api.rows(f"peers?device={holder.device}")):
            text = self._api.text("GET", f"peers/{peer['id']}/config").replace(PASTE, holder.pair.private_key)
            server = self._lab.machine(peer["server_name"])
            gateway = f"10.{list(PLACES).index(server.name) + 1}.0.1"
            tunnel = Tunnel(server.name, f"wg{number}", gateway)
            holder.client.connect(text, tunnel.interface)
            holder.client.wait_for_handshake(tunnel.interface, 15)
            if holder.client.ping(gateway, interface=tunnel.interface).received:
                holder.tunnels.append(tunnel)

    def _wait_for_page(self) -> None:
        """The poll brings the handshakes to the Console."""
        device = self._holders["carol"].device

        def all_shook(answer: Any) -> bool:
            return all(peer["latest_handshake_at"] for peer in answer["results"])

        peers = self._api.wait_until(f"peers?device={device}", all_shook, 30, "Carol's handshakes in the Console")
        for peer in peers["results"]:
            address = peer["addresses"][0].removesuffix("/32")
            self._story.tell(
                f"  Carol on {peer['server_name']}: {address}, handshake {peer['latest_handshake_at'][11:19]}"
            )

    def _revoke(self) -> None:
        carol, dave = self._streams("carol"), self._streams("dave")
        began = time.monotonic()
        self._story.tell("Carol's contract ends: one act revokes her laptop, while she and Dave ping at 100/s")
        row = self._api.post("revocations", device=self._holders["carol"].device, reason="contract ended")
        answered = time.monotonic()
        self._story.tell(f"  the API answered after {1000 * (answered - began):.0f} ms")
        row = self._api.wait_until(f"revocations/{row['id']}", lambda row: row["state"] == "confirmed", 30, "receipts")
        self._story.tell(f"  the last receipt came {1000 * (time.monotonic() - answered):.0f} ms after that answer")
        threading.Event().wait(WATCH)
        self._judge_contractor(carol, answered)
        self._judge_receipts(row)
        self._judge_colleague(dave, began)
        for stream in [*carol.values(), *dave.values()]:
            stream.close()
        self._judge_return()

    def _streams(self, key: str) -> dict[str, Stream]:
        holder = self._holders[key]
        streams = {t.server: holder.client.stream(t.gateway, interface=t.interface) for t in holder.tunnels}
        for stream in streams.values():
            stream.wait_for_reply(5)
        return streams

    def _judge_contractor(self, streams: dict[str, Stream], answered: float) -> None:
        for name, stream in streams.items():
            late = (stream.last_answered_at() or 0) - answered
            when = f"{1000 * abs(late):.0f} ms {'after' if late > 0 else 'before'} the API's answer"
            self._story.check(
                late < SHUT_WITHIN, f"Carol's last packet through {name}: {when}, none in {WATCH:g} s since"
            )

    def _judge_receipts(self, row: Any) -> None:
        for receipt in row["receipts"]:
            is_gone = receipt["is_gone_from_kernel"] and receipt["is_gone_from_disk"] and not receipt["found"]
            moment = (receipt["confirmed_at"] or "never")[11:23]
            self._story.check(is_gone, f"{receipt['server_name']}: gone from kernel and disk, read back at {moment}")
        self._story.check(len(row["receipts"]) == len(PLACES), f"{len(row['receipts'])} receipts of {len(PLACES)}")

    def _judge_colleague(self, streams: dict[str, Stream], began: float) -> None:
        sent = sum(packet.sent_at >= began for stream in streams.values() for packet in stream.packets())
        lost = sum(stream.lost(since=began) for stream in streams.values())
        self._story.check(lost == 0, f"Dave lost {lost} of {sent} packets")

    def _judge_return(self) -> None:
        """Back with the same file and a fresh client, nothing answers."""
        holder = self._holders["carol"]
        answers = 0
        for tunnel in holder.tunnels:
            answers += holder.client.ping(tunnel.gateway, interface=tunnel.interface).received
        self._story.check(answers == 0, f"Carol tries again: {answers} answers")


def prepare(console: RunningConsole, story: Story) -> Api:
    """Users, and a token for all that follows."""
    for name, rights in (("alice", ["--admin"]), ("bob", ["--role", "operator"])):
        password = secrets.token_urlsafe(12)
        console.manage("add_user", name, "--email", f"{name}@example.com", *rights, input=password + "\n")
        story.tell(f"  sign in as {name} ({rights[-1].lstrip('-')}): {password}")
    token = console.manage("add_token", "alice", "demo", "--scope", "operate", "--days", "1").strip()
    return Api(console.url, token)


def exports(console: RunningConsole, api: Api) -> str:
    """What the README's lines and `manage.py` need in a shell to work on this Console."""
    names = {"CONSOLE": console.url, "TOKEN": api.token, "MUSTER_DATA": str(console.folder)}
    for row in api.rows("environments?name=staging"):
        names["ENVIRONMENT"] = str(row["id"])
    return "export " + " ".join(f"{name}={value}" for name, value in names.items())


def stay(console: RunningConsole, api: Api, story: Story) -> None:
    """Until Ctrl-C or SIGTERM."""
    story.tell(f"The Console stays at {console.url}/ with these logins until Ctrl-C; for a shell of yours:")
    print(f"\n    {exports(console, api)}\n", flush=True)
    stop: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: stop.put(number))
    stop.get()
    story.tell("taking everything away")


def run(story: Story, *, is_once: bool) -> None:
    lacks = missing()
    story.tell("starting the Console: web, worker, beat, SQLite and a private broker")
    with tempfile.TemporaryDirectory(prefix="muster-demo-") as folder:
        port = PORT if is_free(PORT) and not is_once else free_port()
        settings = {"MUSTER_POLL_SECONDS": "2"}
        with RunningConsole(Path(folder), port=port, environment=settings) as console:
            story.tell(f"the Console answers at {console.url}/")
            api = prepare(console, story)
            if lacks:
                story.check(
                    False, f"for servers and clients this machine lacks {', '.join(lacks)}: the Console is alone"
                )
                return None if is_once else stay(console, api, story)
            with Lab() as lab:
                play(Demo(lab, api, story), console, story)
                return None if is_once else stay(console, api, story)


def play(demo: Demo, console: RunningConsole, story: Story) -> None:
    try:
        demo.play()
    except (TimeoutError, Refused, LabError) as error:
        story.check(False, str(error))
    if not story.held:
        story.tell("NOT ALL OF IT HELD; the last that the Console said:")
        print("\n".join(console.said().splitlines()[-30:]))
        return
    story.tell("all of it held")


def main() -> int:
    words = argparse.ArgumentParser(prog="make demo", description=__doc__)
    words.add_argument("--once", action="store_true", help="end by itself; exit status 0 says that all of it held")
    story = Story()
    try:
        run(story, is_once=words.parse_args().once)
    except KeyboardInterrupt:
        story.tell("interrupted")
        return 130
    return 0 if story.held else 1


if __name__ == "__main__":
    sys.exit(main())
