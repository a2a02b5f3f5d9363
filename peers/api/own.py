"""Who gets through the API's door without a role: for what is their own alone."""

from django.contrib.auth.models import AnonymousUser
from rest_framework.request import Request
from rest_framework.views import APIView

from fleet.models import User
from fleet.scope import scope_of
from fleet.sign_in import MayOperate
from peers.access import own_person


class MaySeeOwn(MayOperate):
    """As MayOperate, and who is a person themselves. Rows are narrowed by peers/access.py, writes by services."""

    def may_enter(self, user: User | AnonymousUser) -> bool:
        return super().may_enter(user) or own_person(user) is not None


class MayAdminister(MayOperate):
    def has_permission(self, request: Request, view: APIView) -> bool:
        return super().has_permission(request, view) and scope_of(request.user).is_admin
