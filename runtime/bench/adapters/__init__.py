"""The adapters: those that come with Riverrun, and how others are found."""

import importlib
from collections.abc import Mapping
from importlib import metadata
from typing import Any, Final

from runtime.bench.adapter import Adapter, AdapterSpec, Op
from runtime.bench.errors import AdapterError

ENTRY_POINTS: Final = "riverrun.bench.adapters"
BUILT_IN: Final[Mapping[str, str]] = {
    "riverrun": "runtime.bench.adapters.riverrun:RiverrunAdapter",
    "nats": "runtime.bench.adapters.nats:NatsAdapter",
    "xmpp": "runtime.bench.adapters.xmpp:XmppAdapter",
}
_METHODS: Final = ("prepare", "connect", "about", "pids", "tidy")


def find_adapter(name: str, options: Mapping[str, object]) -> AdapterSpec:
    """The adapter of a name: a built-in one, `package.module:Class`, or an entry point of an installed package.

    Raises:
        AdapterError: there is none, or it is none.
    """
    if ":" in name:
        return _checked(AdapterSpec(name.rpartition(":")[2], name, options))
    if name in BUILT_IN:
        return AdapterSpec(name, BUILT_IN[name], options)
    for point in metadata.entry_points(group=ENTRY_POINTS):
        if point.name == name:
            return _checked(AdapterSpec(name, point.value, options))
    known = sorted({*BUILT_IN, *(point.name for point in metadata.entry_points(group=ENTRY_POINTS))})
    raise AdapterError(f"there is no adapter {name!r}; there are {', '.join(known)}, or name one package.module:Class")


def load_adapter(spec: AdapterSpec) -> Adapter:
    """Make an adapter.

    Raises:
        AdapterError: it is not there, or it does not take its options.
    """
    made = _class_of(spec.factory)
    try:
        adapter: Adapter = made(**spec.options)
    except TypeError as error:
        raise AdapterError(f"adapter {spec.factory} cannot be made: {error}") from error
    return adapter


def require(name: str, adapter: Adapter, operations: Mapping[Op, float]) -> None:
    """See that an adapter can do what a profile asks.

    Raises:
        AdapterError: it cannot.
    """
    lacking = [op.value for op in operations if op not in adapter.operations]
    if lacking:
        raise AdapterError(f"adapter {name} cannot do what this profile asks: {', '.join(lacking)}")


def _checked(spec: AdapterSpec) -> AdapterSpec:
    made = _class_of(spec.factory)
    lacking = [word for word in (*_METHODS, "operations", "ack") if not hasattr(made, word)]
    if lacking:
        raise AdapterError(f"{spec.factory} is no adapter: it has no {', '.join(lacking)}")
    return spec


def _class_of(factory: str) -> Any:  # a class, of which only the caller knows more
    module_name, _, name = factory.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise AdapterError(f"adapter {factory}: cannot import {module_name}: {error}") from error
    try:
        return getattr(module, name)
    except AttributeError:
        raise AdapterError(f"adapter {factory}: there is no {name} in {module_name}") from None
