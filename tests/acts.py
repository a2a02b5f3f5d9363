"""Every act that a person can ask for, each on a world of its own, for tests that hold for all of them."""

import datetime as dt

from django.utils import timezone

from audit.services import Actor
from fleet import named_pools, rotation, tokens
from fleet import services as fleet
from fleet.keyrings import PRESHARED_KEYS
from nodes.reviews import decide_review
from nodes.services import approve_hold, request_enrolment
from peers import (
    granting,
    leaving,
    linking,
    lost,
    moving,
    prolonging,
    requests,
    reserving,
    revocation,
    routing,
    static,
    suspending,
    teams,
)
from peers import services as people
from tests.asked import Asked
from tests.asked import asked as _asked
from tests.build import new_public_key
from tests.worlds import WHY, World

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPHsUrqbpUg/9ZfP1jI0tuLQCkmVpXySYcqc3ROLWSe"


def _in_a_month() -> dt.datetime:
    return timezone.now() + dt.timedelta(days=30)


def _server(world: World, actor: Actor) -> object:
    pools = {"ipv4_pool": "10.200.0.0/16", "ipv6_pool": "fd00:200::/64"}
    host = "198.51.100.200"
    return fleet.add_server(
        actor=actor, environment=world.environment, name="new", host=host, endpoint_host=host, **pools
    )


ACTS = [
    _asked("environment.add", lambda w: "lab", fleet.add_environment, name="lab", who="admin"),
    _asked(
        "environment.change",
        lambda w: w.environment.name,
        fleet.change_environment,
        environment=lambda w: w.environment,
        description="other",
        reason=WHY,
        says=WHY,
        who="admin",
    ),
    _asked(
        "bastion.add", lambda w: "gate", fleet.add_bastion, name="gate", host="gate", host_key=HOST_KEY, who="admin"
    ),
    Asked("server.add", _server, lambda w: "new"),
    _asked(
        "server.change",
        lambda w: w.server.name,
        fleet.change_server,
        server=lambda w: w.server,
        dns=lambda w: ["10.0.0.53"],
        reason=WHY,
        says=WHY,
    ),
    _asked(
        "user.add",
        lambda w: "dave",
        fleet.add_user,
        username="dave",
        email="dave@example.com",
        password="a long enough word",
        is_superuser=False,
        who="admin",
    ),
    _asked(
        "user.disable",
        lambda w: str(w.user),
        fleet.disable_user,
        user=lambda w: w.user,
        reason=WHY,
        says=WHY,
        who="admin",
    ),
    _asked(
        "user.enable",
        lambda w: str(w.leaver),
        fleet.enable_user,
        user=lambda w: w.leaver,
        reason=WHY,
        says=WHY,
        who="admin",
    ),
    _asked(
        "role.give",
        lambda w: f"{w.user} operator of {w.environment}",
        fleet.give_role,
        user=lambda w: w.user,
        name="operator",
        environment=lambda w: w.environment,
        who="admin",
    ),
    _asked("role.end", lambda w: str(w.role), fleet.end_role, role=lambda w: w.role, who="admin"),
    _asked(
        "token.add", lambda w: "robot", tokens.add_token, user=lambda w: w.user, name="robot", scope="read", who="admin"
    ),
    _asked(
        "token.revoke",
        lambda w: w.token.name,
        tokens.revoke_token,
        token=lambda w: w.token,
        reason=WHY,
        says=WHY,
        who="admin",
    ),
    _asked(
        "pool.add",
        lambda w: f"temps on {w.server}",
        named_pools.add_pool,
        server=lambda w: w.server,
        name="temps",
        ipv4=lambda w: f"{w.server.pool4[2048]}/24",
    ),
    _asked("pool.end", lambda w: str(w.pool), named_pools.end_pool, pool=lambda w: w.pool, reason=WHY, says=WHY),
    _asked(
        "address.reserve",
        lambda w: f"{w.server.pool4[77]}/32 on {w.server}",
        reserving.reserve_addresses,
        server=lambda w: w.server,
        addresses=lambda w: str(w.server.pool4[77]),
        reason=WHY,
        says=WHY,
    ),
    _asked(
        "address.release",
        lambda w: f"{w.reservation} on {w.server}",
        reserving.release_addresses,
        reservation=lambda w: w.reservation,
        reason=WHY,
        says=WHY,
    ),
    _asked(
        "static_address.add",
        lambda w: f"static address of {w.device} on {w.server}",
        static.assign_address,
        device=lambda w: w.device,
        server=lambda w: w.server,
        ipv4=lambda w: str(w.server.pool4[78]),
        reason=WHY,
        says=WHY,
    ),
    _asked(
        "static_address.end",
        lambda w: str(w.static),
        static.end_static_address,
        static=lambda w: w.static,
        reason=WHY,
        says=WHY,
    ),
    _asked(
        "routed_network.add",
        lambda w: f"192.168.8.0/24 behind {w.device} on {w.server}",
        routing.route_network,
        device=lambda w: w.device,
        server=lambda w: w.server,
        network="192.168.8.0/24",
        reason=WHY,
        says=WHY,
    ),
    _asked(
        "routed_network.end", lambda w: str(w.route), routing.end_route, route=lambda w: w.route, reason=WHY, says=WHY
    ),
    _asked("person.add", lambda w: "Erin", people.add_person, name="Erin", who="operator"),
    _asked(
        "person.change",
        lambda w: "Caroline",
        people.change_person,
        person=lambda w: w.person,
        name="Caroline",
        reason=WHY,
        says=WHY,
        who="operator",
    ),
    _asked(
        "device.register",
        lambda w: f"{w.person.name}'s phone",
        people.register_device,
        person=lambda w: w.person,
        name="phone",
        public_key=lambda w: new_public_key(),
        who="operator",
    ),
    _asked(
        "grant.add",
        lambda w: f"{w.person.name} to {w.server}",
        granting.grant_access,
        person=lambda w: w.person,
        server=lambda w: w.server,
        reason=WHY,
        until=lambda w: _in_a_month(),
        says=WHY,
    ),
    _asked(
        "grant.end",
        lambda w: str(w.grant),
        granting.end_grants,
        grants=lambda w: [w.grant],
        reason=WHY,
        says=WHY,
    ),
    _asked(
        "revocation.add",
        lambda w: str(w.device),
        revocation.revoke_devices,
        devices=lambda w: [w.device],
        reason=WHY,
        says=WHY,
        who="helpdesk",
    ),
    _asked(
        "revocation.add",
        lambda w: f"everything of {w.person}",
        revocation.revoke_person,
        person=lambda w: w.person,
        reason=WHY,
        says=WHY,
        who="helpdesk",
    ),
    _asked(
        "revocation.add",
        lambda w: str(w.device),
        revocation.revoke_key,
        public_key=lambda w: w.device.public_key,
        reason=WHY,
        says=WHY,
        who="helpdesk",
    ),
    _asked(
        "request.add",
        lambda w: f"{w.person.name} to {w.server}",
        requests.request_access,
        person=lambda w: w.person,
        server=lambda w: w.server,
        duration=dt.timedelta(days=3),
        reason=WHY,
        says=WHY,
        who="helpdesk",
    ),
    *(
        _asked(verb, lambda w: str(w.request), service, request=lambda w: w.request, reason=WHY, says=WHY)
        for verb, service in (
            ("request.approve", requests.approve_request),
            ("request.deny", requests.deny_request),
            ("request.cancel", requests.cancel_request),
        )
    ),
    _asked(
        "person.link",
        lambda w: w.person.name,
        linking.link_user,
        person=lambda w: w.person,
        user=lambda w: w.user,
        reason=WHY,
        says=WHY,
        who="admin",
    ),
    _asked(
        "server.enrol",
        lambda w: w.server.name,
        request_enrolment,
        server=lambda w: w.server,
        host_key=HOST_KEY,
        user="root",
        password="a bootstrap password",
    ),
    _asked("push.approve", lambda w: w.hold.cause, approve_hold, hold=lambda w: w.hold, reason=WHY, says=WHY),
    _asked(
        "keyring.rotate",
        lambda w: "keyring nodes",
        rotation.retire_keys,
        keyring="nodes",
        old=lambda w: ("k1",),
        new="k2",
        who="admin",
    ),
    _asked(
        "keyring.clear",
        lambda w: str(w.review.peer),
        rotation.clear_broken,
        row=lambda w: rotation.Broken(PRESHARED_KEYS, w.review.peer.pk, w.review.peer.preshared_key),
        who="admin",
    ),
    _asked(
        "review.decide",
        lambda w: str(w.review),
        decide_review,
        item=lambda w: w.review,
        decision="resume",
        reason=WHY,
        says=WHY,
    ),
    _asked("team.add", lambda w: "net", teams.add_team, name="net", who="operator"),
    _asked(
        "team.join",
        lambda w: w.team.name,
        teams.join_team,
        team=lambda w: w.team,
        people=lambda w: [w.guest],
        reason=WHY,
        says=WHY,
    ),
    _asked(
        "team.leave",
        lambda w: w.team.name,
        teams.leave_team,
        memberships=lambda w: [w.membership],
        reason=WHY,
        says=WHY,
    ),
    *(
        _asked(
            f"{name}.set_end", target, act, until=lambda w: _in_a_month(), reason=WHY, says=WHY, **{f"{name}s": rows}
        )
        for name, act, target, rows in (
            ("membership", prolonging.prolong_memberships, lambda w: str(w.membership), lambda w: [w.membership]),
            ("grant", prolonging.prolong_grants, lambda w: str(w.grant), lambda w: [w.grant]),
        )
    ),
    _asked(
        "team.end",
        lambda w: w.empty.name,
        teams.end_team,
        team=lambda w: w.empty,
        reason=WHY,
        says=WHY,
        who="operator",
    ),
    _asked(
        "grant.move",
        lambda w: f"{w.moving.person} to {w.other}",
        moving.move_grant,
        grant=lambda w: w.moving,
        server=lambda w: w.other,
        reason=WHY,
        says=WHY,
    ),
    _asked("peer.let_in", lambda w: str(w.waiting), moving.let_in, peer=lambda w: w.waiting, reason=WHY, says=WHY),
    _asked(
        "suspension.begin",
        lambda w: str(w.person),
        suspending.suspend,
        targets=lambda w: [w.person],
        reason=WHY,
        says=WHY,
        who="helpdesk",
    ),
    _asked(
        "suspension.end",
        lambda w: str(w.suspension.target),
        suspending.resume,
        suspension=lambda w: w.suspension,
        reason=WHY,
        says=WHY,
    ),
    _asked(
        "person.leave",
        lambda w: str(w.person),
        leaving.offboard,
        people=lambda w: [w.person],
        reason=WHY,
        says=WHY,
        also=("revocation.add",),
    ),
    _asked(
        "revocation.add",
        lambda w: str(w.device),
        lost.report_lost,
        device=lambda w: w.device,
        reason=WHY,
        says=f"lost: {WHY}",
        who="helpdesk",
    ),
    _asked(
        "peer.settle",
        lambda w: f"{w.person}'s laptop",
        lost.report_lost,
        device=lambda w: w.device,
        public_key=lambda w: new_public_key(),
        says="in place of the lost laptop",
        also=("revocation.add", "device.register"),
    ),
]
