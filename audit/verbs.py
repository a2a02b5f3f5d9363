"""Every act that the ledger can hold, as noun.verb."""

from enum import StrEnum


class Verb(StrEnum):
    SIGN_IN = "user.sign_in"
    SIGN_IN_REFUSED = "user.sign_in_refused"
    USER_ADD = "user.add"
    ROLE_GIVE = "role.give"
    ROLE_END = "role.end"
    TOKEN_ADD = "token.add"  # noqa: S105 - a verb
    TOKEN_REVOKE = "token.revoke"  # noqa: S105 - a verb
    ENVIRONMENT_ADD = "environment.add"
    ENVIRONMENT_CHANGE = "environment.change"
    BASTION_ADD = "bastion.add"
    SERVER_ADD = "server.add"
    SERVER_CHANGE = "server.change"
    SERVER_ENROL = "server.enrol"
    SERVER_ENROLLED = "server.enrolled"
    SERVER_ENROL_FAILED = "server.enrol_failed"
    SERVER_PIN = "server.pin_host_key"
    PERSON_ADD = "person.add"
    PERSON_CHANGE = "person.change"
    DEVICE_REGISTER = "device.register"
    GRANT_ADD = "grant.add"
    GRANT_END = "grant.end"
    PEER_SETTLE = "peer.settle"
    PEER_EXPIRE = "peer.expire"
    REVOKE = "revocation.add"
    REVOKE_CONFIRMED = "revocation.confirmed"
    PUSH_HELD = "push.held"
    PUSH_APPROVE = "push.approve"
    DRIFT_SEEN = "drift.seen"
    IDENTITY_CHANGED = "server.identity_changed"
    JOURNAL_ENTRY = "journal.entry"
    JOURNAL_BROKEN = "journal.broken"
    REVIEW_ADD = "review.add"
    REVIEW_DECIDE = "review.decide"
