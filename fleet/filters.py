"""Filters of lists by a row's id."""

import django_filters


def by_id(column: str) -> django_filters.NumberFilter:
    """Refuses what no id can be, before a database counts that far."""
    return django_filters.NumberFilter(field_name=column, min_value=1, max_value=2**63 - 1, decimal_places=0)
