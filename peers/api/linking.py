"""Who a person is in the Console, over HTTP."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from fleet.models import User
from fleet.rest import Input, Reason, Resource
from peers.api.own import MayAdminister
from peers.linking import link_user
from peers.models import Person


class SignIn(serializers.SlugRelatedField[User]):
    """By its name. What no name holds is asked of no database: PostgreSQL takes no such text."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(slug_field="username", queryset=User.objects.all(), **kwargs)

    def to_internal_value(self, data: Any) -> User:
        if isinstance(data, str) and "\0" in data:
            self.fail("does_not_exist", slug_name=self.slug_field, value=data.replace("\0", ""))
        return super().to_internal_value(data)


class LinkInput(Input):
    """`user`: a sign-in by its name; null to unlink."""

    user = SignIn(allow_null=True)
    reason = Reason()


class Linking(Resource[Person]):
    """What the resource of people has beside their access."""

    @extend_schema(request=LinkInput)
    @action(detail=True, methods=["post"], permission_classes=[MayAdminister])
    def link(self, request: Request, pk: str) -> Response:
        person = self.get_object()
        return self.shown(link_user(actor=self.actor, person=person, **self.given(LinkInput)))
