"""Who a person is in the Console, over HTTP."""

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


class LinkInput(Input):
    """`user`: a sign-in by its name; null to unlink."""

    user = serializers.SlugRelatedField(slug_field="username", queryset=User.objects.all(), allow_null=True)
    reason = Reason()


class Linking(Resource[Person]):
    """What the resource of people has beside their access."""

    @extend_schema(request=LinkInput)
    @action(detail=True, methods=["post"], permission_classes=[MayAdminister])
    def link(self, request: Request, pk: str) -> Response:
        person = self.get_object()
        return self.shown(link_user(actor=self.actor, person=person, **self.given(LinkInput)))
