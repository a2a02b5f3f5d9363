"""What every resource of the API shares: strict input, one answer, and errors that a script can read."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

from django.core.exceptions import NON_FIELD_ERRORS, PermissionDenied
from django.db.models import Model, QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import exceptions, mixins, serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import APIView, exception_handler
from rest_framework.viewsets import GenericViewSet

from fleet import fields
from fleet.models import User
from fleet.refusal import REFUSED, is_conflict, messages_of, record_refusal
from fleet.sealing import SealBroken
from fleet.sign_in import SAFE, MayOperate

Row = TypeVar("Row", bound=Model)
MOST_TOLD = 20


class Conflict(exceptions.APIException):
    status_code = status.HTTP_409_CONFLICT

    def __init__(self, detail: dict[str, list[str]]) -> None:
        self.detail = detail  # type: ignore[assignment]


class DoesNotOpen(exceptions.APIException):
    status_code = status.HTTP_503_SERVICE_UNAVAILABLE


def explain_error(error: Exception, context: dict[str, Any]) -> Response | None:
    """Services raise Django's own errors; a script gets them as 400, 403 or 409 with the field and the mend."""
    request = context["request"]
    if isinstance(error, PermissionDenied | exceptions.PermissionDenied) and request.method not in SAFE:
        record_refusal(request.user, f"{request.method} {request.path}", error)
    if isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied(str(error))
    elif isinstance(error, SealBroken):
        error = DoesNotOpen(str(error))
    elif isinstance(error, REFUSED):
        found = messages_of(error)
        if NON_FIELD_ERRORS in found:
            found[api_settings.NON_FIELD_ERRORS_KEY] = found.pop(NON_FIELD_ERRORS)
        error = Conflict(found) if is_conflict(error) else exceptions.ValidationError(found)
    return exception_handler(error, context)


class MayAsk(MayOperate):
    """Whatever the method: there is nothing to change."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        return self.may_enter(request.user)


@extend_schema(exclude=True)
class NoSuchResource(APIView):
    """What is no address of the API answers so, whatever the method; who is not let in learns no more than anywhere."""

    permission_classes = (MayAsk,)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        raise exceptions.NotFound(f"There is no {request.path}: /api/v1/ lists what there is.")


class Input(serializers.Serializer[Any]):
    """What a script may send: these fields and no others."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = sorted(str(name) for name in data if name not in self.fields)
            if unknown:
                known = ", ".join(self.fields)
                told = unknown[:MOST_TOLD]  # a body may have a hundred thousand, and each costs time to tell
                raise serializers.ValidationError({name: [f"There is no such field: use {known}."] for name in told})
        return super().to_internal_value(data)


class Text(serializers.CharField):
    """Exactly what was sent: a number is no text, and no space is cut off."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Reason(Text):
    """Why a person acts, on one line; it is kept in the ledger."""

    def __init__(self) -> None:
        super().__init__(max_length=500, validators=[fields.one_line])

    def run_validation(self, data: Any = serializers.empty) -> Any:
        if isinstance(data, str) and not data.strip():
            self.fail("blank")
        return super().run_validation(data)


class Visible(serializers.PrimaryKeyRelatedField[Any]):
    """The id of a row that this user sees; another's is refused as one that does not exist."""

    default_error_messages: ClassVar = {
        "does_not_exist": "You see none with the id {pk_value}.",
        "incorrect_type": "Give an id, not {data_type}.",
    }

    def __init__(self, model: type[Model], rows: Callable[[User], QuerySet[Any]], **kwargs: Any) -> None:
        self.rows = rows
        super().__init__(queryset=model._default_manager.none(), **kwargs)

    def get_queryset(self) -> QuerySet[Any]:
        return self.rows(self.context["request"].user)

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, float | list | dict):
            self.fail("incorrect_type", data_type=type(data).__name__)
        return super().to_internal_value(data)


class Resource(mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet[Row], Generic[Row]):
    """Rows that the user sees. Each write is one call of a service with `given(...)`, answered by `shown(...)`."""

    @property
    def actor(self) -> User:
        assert isinstance(self.request.user, User)  # the permission class let nobody else in
        return self.request.user

    def given(self, form: type[serializers.Serializer[Any]], *, partial: bool = False) -> dict[str, Any]:
        """The request's values; ValidationError names each field that is wrong or unknown."""
        asked = form(data=self.request.data, partial=partial, context=self.get_serializer_context())
        asked.is_valid(raise_exception=True)
        return dict(asked.validated_data)

    def shown(self, row: Row, code: int = status.HTTP_200_OK) -> Response:
        return Response(self.get_serializer(row).data, code)
