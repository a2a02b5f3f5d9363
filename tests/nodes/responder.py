"""The far end of a lane in the transport's tests: behaves as the command that was asked for says."""

import json
import os
import select
import sys

behaviour = os.environ["SSH_ORIGINAL_COMMAND"]
out = sys.stdout


def say(line: str) -> None:
    out.write(line + "\n")
    out.flush()


def answer(request: dict[str, object]) -> None:
    answer = {"v": 1, "id": request["id"], "ok": True, "echo": request}
    refusal = {
        "v": 1,
        "id": request["id"],
        "ok": False,
        "error": {"code": "brake", "message": "too many"},
        "removals": 9,
    }
    say(json.dumps(refusal if request["op"] == "refuse" else answer))


if behaviour == "endless":
    while True:
        out.write("x" * 65536)
elif behaviour == "die":
    sys.exit("muster-node: no such interface\033[31m")
elif behaviour.startswith("say "):
    sys.stdin.readline()
    say(behaviour.removeprefix("say "))
    sys.stdin.read()
elif behaviour == "deaf":
    hang_up = select.poll()
    hang_up.register(out, select.POLLERR)
    hang_up.poll()  # for as long as somebody could listen
    sys.exit()
for line in sys.stdin:
    request = json.loads(line)
    if request["op"] != "ignore":
        answer(request)
