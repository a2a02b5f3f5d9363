"""Filters of lists: a row's id, and the refusal of what is no filter."""

import datetime as dt
from typing import Any

import django_filters
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.views import APIView


def by_id(column: str) -> django_filters.NumberFilter:
    """Refuses what no id can be, before a database counts that far."""
    return django_filters.NumberFilter(field_name=column, min_value=1, max_value=2**63 - 1, decimal_places=0)


def before(column: str) -> django_filters.IsoDateTimeFilter:
    """Refuses what no database counts to in UTC."""
    return django_filters.IsoDateTimeFilter(field_name=column, lookup_expr="lt", validators=[_within_reach])


def _within_reach(moment: dt.datetime) -> None:
    if not 1900 < moment.year < 9999:
        raise ValidationError("Give a time between the years 1901 and 9998.")


class StrictFilterBackend(DjangoFilterBackend):  # type: ignore[misc] # it has no types
    """A filter that does not exist is named: ignored, a slip of the finger would answer with every row."""

    pages = ("limit", "offset")

    def filter_queryset(self, request: Request, queryset: QuerySet[Any], view: APIView) -> QuerySet[Any]:
        filters = self.get_filterset_class(view, queryset)
        known = [*(filters.base_filters if filters else ()), *self.pages]
        unknown = sorted(set(request.query_params) - set(known))
        if unknown:
            message = f"There is no such filter: use {', '.join(known)}."
            raise serializers.ValidationError({name: [message] for name in unknown})
        found: QuerySet[Any] = super().filter_queryset(request, queryset, view)
        return found
