"""The one error model: every error has a code, a fault and a sentence."""

from __future__ import annotations

import inspect

from shim import errors
from shim.errors import Code, NodeFault, ShimError


def every() -> list[type[ShimError]]:
    return [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ShimError)]


def test_a_sentence_is_subject_message_remedy() -> None:
    error = NodeFault("is not installed", subject="solo5-spt", remedy="install it")
    assert str(error) == "solo5-spt: is not installed; install it"
    assert (error.subject, error.message, error.remedy) == ("solo5-spt", "is not installed", "install it")
    assert str(NodeFault("plain")) == "plain"


def test_every_error_is_in_the_picture() -> None:
    picture = errors.__doc__ or ""
    for kind in every():
        if kind is not ShimError:
            assert kind.__name__ in picture and kind.code.name in picture
        assert kind.code is not Code.OK
