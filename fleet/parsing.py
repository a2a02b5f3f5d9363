"""How the API reads JSON and pages: bounded, strict, and before any view is loaded."""

import json
import math
from collections.abc import Mapping
from typing import IO, Any

from rest_framework.exceptions import APIException, ParseError
from rest_framework.pagination import LimitOffsetPagination
from rest_framework.parsers import BaseParser
from rest_framework.request import Request

LIMIT_BYTES = 2 * 1024 * 1024


class TooLarge(APIException):
    status_code = 413
    default_detail = f"A request holds at most {LIMIT_BYTES} bytes."
    default_code = "too_large"


class StrictJSONParser(BaseParser):
    """UTF-8 whatever the header says; what could not be stored as text, or is no finite number, is no JSON here."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        raw = stream.read(LIMIT_BYTES + 1)
        if len(raw) > LIMIT_BYTES:
            raise TooLarge
        try:
            data = json.loads(raw.decode(), parse_constant=_finite, parse_float=_finite)
            json.dumps(data, ensure_ascii=False).encode()  # half of a surrogate pair is no text
        except (ValueError, RecursionError) as error:
            raise ParseError(f"This is not JSON that can be read: {error}"[:200]) from None
        return data


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a finite number")
    return number


class CappedPagination(LimitOffsetPagination):
    """`?limit=` up to 1000 and `?offset=`; an offset that no database could count to is past the end."""

    max_limit = 1000

    def get_offset(self, request: Request) -> int:
        return min(super().get_offset(request), 2**31)
