"""A node's journal: parsed strictly, its chain checked, each entry one Event; what a liar sends harms itself alone."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.models import Event
from fleet.models import Environment, Server, ServerStatus
from nodes import chain, observe
from nodes.chain import Cursor
from nodes.desired import desired_state
from nodes.journal import BATCHES
from nodes.models import ReviewItem
from nodes.observe import Nonsense
from peers.models import Peer, Receipt, Revocation, Tombstone
from tests.build import make_peers, make_server, new_public_key
from tests.nodes.journals import ENTRY, Json, Node, hash_of, journal, read

KEY = new_public_key()


def cursor(server: Server) -> Cursor:
    status = ServerStatus.objects.get(server=server)
    return Cursor(status.journal_seen, status.journal_hash)


@pytest.mark.parametrize(
    "change",
    [
        *({"seq": value} for value in (-1, "1", 1.0, True, None, 2**63)),
        *({"at": value} for value in (-1, "1", 2**34)),
        *({name: 5} for name in ("what", "public_key", "detail", "by", "previous")),
        *({name: ["x"]} for name in ("what", "public_key", "detail", "by", "previous")),
        {"more": 1},
    ],
)
def test_an_entry_with_one_wrong_value_is_nonsense(change: Json) -> None:
    with pytest.raises(Nonsense):
        observe.journal({"entries": [{**ENTRY, **change}]})
    assert [entry.hash for entry in observe.journal({"entries": [ENTRY]})] == [hash_of(ENTRY)]


@pytest.mark.parametrize("entries", ["x", {}, [None], [[]], [ENTRY] * 1001, [{}]])
def test_what_is_no_list_of_entries_is_nonsense(entries: object) -> None:
    with pytest.raises(Nonsense):
        observe.journal({"entries": entries})


def test_texts_of_an_entry_are_cut_and_cleaned_and_a_bad_key_is_left_out() -> None:
    nasty = {"what": "x\x1b" * 90, "public_key": "A" * 44, "detail": "\ud800\n" * 900, "by": "<b>\u202e" * 90}
    [entry] = observe.journal({"entries": [{**ENTRY, **nasty}]})
    assert (entry.what, entry.public_key, entry.detail, entry.by) == ("x?" * 20, None, "?" * 500, ("<b>?" * 25))
    assert observe.journal({"entries": [{**ENTRY, "public_key": KEY}]})[0].public_key == KEY


@given(st.lists(st.fixed_dictionaries({"detail": st.text(max_size=20), "at": st.integers(0, 2**33)}), max_size=6))
def test_a_chain_as_a_node_makes_it_has_no_fault(entries: list[Json]) -> None:
    kept = Cursor()
    for entry in observe.journal({"entries": journal(*entries)}):
        assert chain.fault(kept, entry) == ""
        kept = chain.after(kept, entry)
    assert kept.seq == len(entries)


def left_out(entries: list[Json]) -> list[Json]:
    return [entries[0], entries[2]]


def changed(entries: list[Json]) -> list[Json]:
    return [entries[0], {**entries[1], "detail": "another"}, entries[2]]


def swapped(entries: list[Json]) -> list[Json]:
    return [entries[0], entries[2], entries[1]]


def begun_elsewhere(entries: list[Json]) -> list[Json]:
    return [{**entries[0], "previous": "1" * 64}]


@pytest.mark.parametrize("change", [left_out, changed, swapped, begun_elsewhere])
def test_a_chain_that_somebody_touched_has_a_fault(change: Callable[[list[Json]], list[Json]]) -> None:
    kept, faults = Cursor(), []
    for entry in observe.journal({"entries": change(journal({}, {}, {}))}):
        faults += [fault] if (fault := chain.fault(kept, entry)) else []
        kept = chain.after(kept, entry)
    assert faults


def test_what_another_console_read_may_be_forgotten() -> None:
    [*_, last] = observe.journal({"entries": journal({}, {}, {})})
    assert (chain.fault(Cursor(), last), chain.fault(Cursor(1, "x"), last)) == ("", "entry 3 came after entry 1.")


@pytest.mark.django_db
def test_each_entry_is_one_event_and_is_read_once(staging: Environment) -> None:
    server = make_server(staging)
    node = Node(journal({"what": "expired"}, {"what": "new in version 9", "by": "", "detail": "odd"}))
    last = Event.objects.latest("id").pk
    assert (read(server, node), node.has_caught_up, read(server, node)) == (True, True, False)
    found = Event.objects.filter(pk__gt=last).order_by("id")
    columns = ("verb", "actor_label", "origin", "origin_detail", "reason")
    assert list(found.values_list(*columns)) == [
        ("journal.entry", "node", "node", server.name, f"expired at {server.name}"),
        ("journal.entry", "node", "node", server.name, "odd"),
    ]
    assert cursor(server) == Cursor(2, hash_of(node.entries[1]))


@pytest.mark.django_db
def test_a_revoke_is_everybodys_also_of_a_key_that_no_device_has(staging: Environment) -> None:
    servers = [make_server(staging), make_server(staging)]
    [peer, _] = make_peers(staging, 1)
    known = peer.device.public_key
    said = [{"what": "revoked", "public_key": key, "by": "dora", "detail": "lost"} for key in (known, KEY, known)]
    read(servers[0], Node(journal(*said)))
    assert {row.public_key for row in Tombstone.objects.all()} == {known, KEY}
    assert set(Receipt.objects.filter(public_key=known).values_list("server", flat=True)) == {s.pk for s in servers}
    assert not Peer.objects.filter(ended_at=None).exists()
    assert set(Revocation.objects.values_list("revoked_by", "reason")) == {(f"dora at {servers[0].name}", "lost")}
    verbs = list(Event.objects.filter(origin="node").order_by("id").values_list("verb", flat=True))
    assert verbs == ["revocation.add", "revocation.add", "journal.entry"]


@pytest.mark.django_db
def test_a_suspend_is_one_review_of_that_server_s_peer(staging: Environment) -> None:
    servers = [make_server(staging), make_server(staging)]
    key = make_peers(staging, 1)[0].device.public_key
    before = {server.pk: desired_state(server.pk) for server in servers}
    said = {"what": "suspended", "public_key": key, "by": "dora"}
    node = Node(journal(said, said, {**said, "public_key": KEY}))
    read(servers[0], node)
    item = ReviewItem.objects.get()
    assert (item.server, item.peer.server, item.by, item.state) == (servers[0], servers[0], "dora", "waiting")
    after = [desired_state(server.pk) for server in servers]
    assert [key in desired.content.peers for desired in after] == [False, True]
    assert (after[0].journal_seen, after[0].removals) == (3, ())
    assert [desired.generation - before[desired.server_id].generation for desired in after] == [1, 0]
    ServerStatus.objects.update(journal_seen=0, journal_hash="")
    ReviewItem.objects.update(decided_at=item.at, decision="resume")
    read(servers[0], Node(node.entries[:1]))
    assert ReviewItem.objects.count() == 1


@pytest.mark.django_db
def test_a_broken_chain_is_told_and_its_revocations_win(staging: Environment) -> None:
    server = make_server(staging)
    entries = journal({}, {}, {"what": "revoked", "public_key": KEY})
    read(server, Node(left_out(entries)))
    assert Event.objects.get(verb="journal.broken").reason == "entry 3 came after entry 1."
    assert server.status.conditions == {}
    server.status.refresh_from_db()
    assert server.status.conditions["Intact"]["status"] is False
    assert (Tombstone.objects.get().public_key, cursor(server).seq) == (KEY, 3)


@pytest.mark.django_db
def test_a_journal_without_end_costs_a_bounded_part_and_is_read_on(
    staging: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observe, "JOURNAL_LIMIT", 3)
    server, node = make_server(staging), Node(journal(*[{}] * 3), head=10**6)
    with pytest.raises(Nonsense, match="goes to entry 1000000 and was read up to entry 3"):
        read(server, node)
    assert (len(node.asked), cursor(server).seq, node.has_caught_up) == (BATCHES, 3, False)


@pytest.mark.django_db
def test_an_entry_that_is_nonsense_leaves_the_rest_unread(staging: Environment) -> None:
    """E15"""
    server = make_server(staging)
    with pytest.raises(Nonsense):
        read(server, Node([*journal({"what": "revoked", "public_key": KEY}), {**ENTRY, "seq": 2, "at": -1}]))
    assert (Tombstone.objects.count(), cursor(server)) == (0, Cursor())
