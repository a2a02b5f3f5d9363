"""Tables as CSV. A spreadsheet runs what begins like a formula, so such a cell is made text."""

import csv
import datetime as dt
from collections.abc import Iterable, Iterator, Sequence

from django.http import StreamingHttpResponse

FORMULAS = frozenset("=+-@\uff1d\uff0b\uff0d\uff20\t\r\n")


def cell(value: object, *, is_key: bool = False) -> str:
    """One cell. A public key is left as it is, whatever it begins with: it holds nothing that a formula needs."""
    if value is None:
        return ""
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat(timespec="seconds")
    text = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    first = text.lstrip(" ")[:1]
    return f"'{text}" if first in FORMULAS and first and not is_key else text


class Echo:
    """What csv writes to: it hands each line on."""

    def write(self, line: str) -> str:
        return line


def csv_lines(columns: Sequence[str], rows: Iterable[Sequence[object]], keys: Iterable[str] = ()) -> Iterator[str]:
    writer = csv.writer(Echo(), quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    are_keys = [column in set(keys) for column in columns]
    yield writer.writerow([cell(column) for column in columns])
    for row in rows:
        yield writer.writerow([cell(value, is_key=is_key) for value, is_key in zip(row, are_keys, strict=True)])


def csv_answer(name: str, lines: Iterable[str]) -> StreamingHttpResponse:
    answer = StreamingHttpResponse(lines, content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    answer["Cache-Control"] = "no-store"
    return answer
