"""Wires the ledger: triggers after migrate, sign-ins, and the origin of work that a task does."""

from typing import Any

from celery.signals import task_postrun, task_prerun
from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in, user_login_failed
from django.db import connections
from django.db.models.signals import post_migrate

from audit import append_only, tasks_origin


def after_migrate(using: str, **kwargs: Any) -> None:
    append_only.put_in_place(connections[using])


class AuditConfig(AppConfig):
    name = "audit"

    def ready(self) -> None:
        from audit import signing_in  # noqa: PLC0415 - it needs models, which load after this module

        post_migrate.connect(after_migrate, sender=self, dispatch_uid="audit.append_only")
        user_logged_in.connect(signing_in.record_sign_in, dispatch_uid="audit.sign_in")
        user_login_failed.connect(signing_in.record_refusal, dispatch_uid="audit.refused")
        task_prerun.connect(tasks_origin.enter, dispatch_uid="audit.task_prerun")
        task_postrun.connect(tasks_origin.leave, dispatch_uid="audit.task_postrun")
