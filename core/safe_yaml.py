"""Reading YAML from anywhere in bounded time and memory."""

from pathlib import Path
from typing import Any

import yaml

from core.errors import UserError
from core.inputs import open_regular

_LARGEST = 1 << 17
"""Bytes of a configuration file; real ones have a few thousand."""
_NODES = 100_000
"""Values of a file after its aliases are replaced by what they stand for."""
_DEPTH = 100


def read_yaml(path: Path, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """Reads a YAML file.

    Args:
        path: the file.
        loader: makes the values; none of a `SafeLoader` runs code.

    Raises:
        UserError: it is no file that can be read, too large, not UTF-8, not YAML, nested too deeply, or its aliases
            stand for too much; the message has the place.
    """
    return parse_yaml(_text(path), str(path), loader)


def parse_yaml(text: str, name: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """Parses YAML; arguments and errors as for `read_yaml`."""
    if len(text) > _LARGEST:
        raise UserError(f"{name}: {len(text)} characters of YAML: expected a configuration of at most {_LARGEST}")
    reader = None
    try:
        _check_depth(text, name, loader)
        reader = loader(text)
        node = reader.get_single_node()
        if node is None:
            return None
        _check_size(node, name)
        return reader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{name}{place}: not valid YAML ({reason}); fix the file there or just above") from error
    except RecursionError as error:
        raise UserError(f"{name}: YAML is nested too deeply for a configuration; is it the right file?") from error
    except (ValueError, TypeError) as error:  # a date that does not exist, a key that is a list
        raise UserError(f"{name}: a value cannot be read ({error}); write it in quotes") from error
    finally:
        if reader is not None:
            reader.dispose()


def _text(path: Path) -> str:
    with open_regular(path, "a YAML file", UserError) as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise UserError(f"{path}: larger than {_LARGEST // 1024} KiB; expected a configuration; is it the right file?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error


def _check_depth(text: str, name: str, loader: type[yaml.SafeLoader]) -> None:
    """Stops reading where it is nested too deeply; the events come one by one."""
    depth = 0
    for event in yaml.parse(text, loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEPTH:
            raise UserError(f"{name}: YAML is nested more than {_DEPTH} levels deep; is it the right file?")


def _check_size(root: yaml.Node, name: str) -> None:
    """Counts values as if every alias were written out; a node that stands for many is visited once."""
    counts: dict[int, int] = {}

    def count(node: yaml.Node) -> int:
        if id(node) not in counts:
            counts[id(node)] = 1  # an alias of what encloses it stands for one
            if isinstance(node, yaml.MappingNode):
                inner = [part for pair in node.value for part in pair]
            else:
                inner = node.value if isinstance(node, yaml.SequenceNode) else []
            counts[id(node)] += sum(count(part) for part in inner)
        return counts[id(node)]

    if count(root) > _NODES:
        raise UserError(f"{name}: its aliases stand for more than {_NODES} values; write out what is meant")
