"""Words that people give to `unikernel-shim image`, which become part of documents in UTF-8."""

from __future__ import annotations

from collections.abc import Iterable

from shim.errors import InvalidRequest


def check_text(words: Iterable[str]) -> None:
    """Raise InvalidRequest for a word whose bytes on the command line were no UTF-8."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest("an image's documents are UTF-8, and this is not", subject=ascii(word)) from error


def pair(word: str, option: str) -> tuple[str, str]:
    """Name and value of NAME=VALUE, given to `option`. Raises InvalidRequest where it is something else."""
    name, equals, value = word.partition("=")
    if not name or not equals or "\0" in word:
        raise InvalidRequest(f"{word!r} is not NAME=VALUE", subject=option)
    return name, value
