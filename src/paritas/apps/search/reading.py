# SPDX-License-Identifier: Apache-2.0
"""Files of texts, one row after another: CSV, TSV, JSON Lines, Parquet, and folders of text files."""

from __future__ import annotations

import codecs
import csv
import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from paritas.errors import InputError, did_you_mean
from paritas.extras import require

#: What a column may hold: what else is in a file is kept as its text.
Value = str | int | float | bool | None

#: By their ends.
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

#: A file that begins so says in which encoding it is.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A text and what is known of it. key: the same for the same row, whenever it is read."""

    key: str
    text: str
    columns: dict[str, Value]


def rows(files: Sequence[str | Path], text: str, *, key: str = "", encoding: str = "utf-8") -> Iterator[Row]:
    """All rows of some files, of which no more than one batch is in memory.

    text: the column that is embedded. key: that by which a row is known again; else it is all that is in it. Of a
    folder, every file of text is a row, with the columns `file` and `title`. Raises `InputError` for a file that is
    none of these, a column that is not there, a line that is no JSON, and text in another encoding.
    """
    _check_encoding(encoding)
    csv.field_size_limit(sys.maxsize)
    for path in map(Path, files):
        for values in _read(path, encoding):
            if text not in values:
                raise InputError(_missing(path, "text", text, values))
            if key and key not in values:
                raise InputError(_missing(path, "key", key, values))
            columns = {_clean(str(name)): _plain(value) for name, value in values.items() if name != text}
            words = values[text]
            words = _clean("" if words is None else str(words)).replace("\r\n", "\n").replace("\r", "\n")
            yield Row(_key(columns, words, key), words, columns)


def _missing(path: Path, option: str, name: str, values: Iterable[Any]) -> str:
    import difflib

    names = [str(one) for one in values]
    close = difflib.get_close_matches(name, names, 1)
    return f"{path} has no column {name!r} for --{option}.{did_you_mean(close)} It has {', '.join(names) or 'none'}."


def _key(columns: dict[str, Value], text: str, key: str) -> str:
    if key:
        return f"{key}={columns.get(key)}"
    written = json.dumps([sorted(columns.items()), text], ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(written.encode("utf-8", "surrogatepass")).hexdigest()


def _clean(text: str) -> str:
    """A text without what no database keeps: zeros, and halves of characters, which a line of JSON can have."""
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    return text.replace("\0", "")


def _plain(value: Any) -> Value:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, str):
        return _clean(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    return _clean(str(value))


def _number(text: str | None) -> Value:
    """A cell of a table without types, as what it reads like: a year is compared as a number."""
    if text is None or not text.strip():
        return text
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        # "007" and "1e5" may be names; what is written as a number is written again so.
        return value if str(value) == text.strip() else text
    return text


def _read(path: Path, encoding: str) -> Iterator[dict[str, Any]]:
    if path.is_dir():
        yield from _folder(path, encoding)
    elif not path.exists():
        raise InputError(f"There is no file {path}.")
    elif path.suffix.lower() in (".csv", ".tsv"):
        yield from _table(path, encoding)
    elif path.suffix.lower() in (".jsonl", ".ndjson"):
        yield from _lines(path, encoding)
    elif path.suffix.lower() == ".parquet":
        yield from _parquet(path)
    else:
        raise InputError(f"{path} is none of what is read: {', '.join(_TABLES)}, or a folder of text files.")


def _table(path: Path, encoding: str) -> Iterator[dict[str, Any]]:
    with _opened(path, encoding) as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        try:
            if not reader.fieldnames:
                raise InputError(f"{path} is empty: a table begins with a line of names of columns.")
            for row in reader:
                if None in row or None in row.values():
                    count = len(reader.fieldnames)
                    raise InputError(
                        f"{path}, line {reader.line_num}: this row has {'more' if None in row else 'fewer'} fields "
                        f"than the {count} columns. Text with commas or line ends has to be in quotes."
                    )
                # The text's own column is read as it stands; `rows` turns it into text again.
                yield {name: _number(value) for name, value in row.items()}
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: {error}.") from error
        except UnicodeDecodeError as error:
            raise InputError(_undecoded(path, encoding, error)) from error


def _lines(path: Path, encoding: str) -> Iterator[dict[str, Any]]:
    with _opened(path, encoding) as file:
        try:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{path}, line {number}: this is no JSON: {error}.") from error
                if not isinstance(row, dict):
                    raise InputError(f"{path}, line {number}: this is no object with names, as {{...}}.")
                yield row
        except UnicodeDecodeError as error:
            raise InputError(_undecoded(path, encoding, error)) from error


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    require("parquet", f"reading {path.name}")
    import pyarrow
    from pyarrow import parquet

    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=1024):
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from error


def _folder(path: Path, encoding: str) -> Iterator[dict[str, Any]]:
    found = sorted(one for one in path.rglob("*.txt") if one.is_file())
    if not found:
        raise InputError(f"The folder {path} has no file of text: *.txt.")
    for one in found:
        with _opened(one, encoding) as file:
            try:
                yield {"file": str(one.relative_to(path)), "title": one.stem, "text": file.read()}
            except UnicodeDecodeError as error:
                raise InputError(_undecoded(one, encoding, error)) from error


def _opened(path: Path, encoding: str) -> Any:
    with path.open("rb") as file:
        start = file.read(4)
    told = next((name for mark, name in _MARKS if start.startswith(mark)), encoding)
    return path.open(encoding=told, newline="")


def _check_encoding(name: str) -> None:
    try:
        codecs.lookup(name)
    except LookupError as error:
        raise InputError(f"{name!r} is no encoding that Python knows; utf-8, latin-1 and cp1252 are some.") from error


def _undecoded(path: Path, encoding: str, error: UnicodeDecodeError) -> str:
    return (
        f"{path} is not {encoding}: byte 0x{error.object[error.start]:02x} means nothing there. Say what it is: "
        "--encoding latin-1, or cp1252."
    )
