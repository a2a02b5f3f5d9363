"""Stands in for the installer: it does what the interface's name says, and tells what it saw."""

import json
import os
import select
import subprocess
import sys
from pathlib import Path

program, interface = sys.argv[1:]
request = json.loads(sys.stdin.readline())
print("Setting up wireguard-tools\r\033[1mdone\033[0m", file=sys.stderr, flush=True)
if interface == "wgfail":
    sys.exit("E: no space left\033[2J, said with " + request.get("password", "nothing"))
if interface == "wgforeign":
    print(json.dumps({"ok": False, "error": {"code": "foreign_conf", "message": "wgforeign.conf is not ours"}}))
    sys.exit(1)
if interface == "wgsilent":
    sys.exit(0)
if interface == "wghang":
    hang_up = select.poll()
    hang_up.register(sys.stdout, select.POLLERR)
    hang_up.poll()  # for as long as somebody could listen
if interface == "wgdaemon":
    subprocess.Popen(["sleep", "5"])  # holds the output open, as wireguard-go may
if interface == "wgflood":
    print("x" * 3_000_000)
calls = [path.read_bytes().decode(errors="replace") for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
answer = {"ok": True, "uid": os.getuid(), "program": program, "request": request, "rest": sys.stdin.read()}
print("Welcome")
print(json.dumps(answer | {"calls": "\n".join(calls)}))
