"""YAML text to plain data, with the place of every value.

The data is built from the parser's events, without recursion and within limits on depth and size, so that no file makes
the loader take long or fail with anything but a diagnostic. PyYAML's own constructors are not used: they keep the last
of duplicate keys, run tags, and read scalars by YAML 1.1.
"""

import gc
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from quanta_compiler.diagnostics import DataPath, Problems, Span, quote
from quanta_compiler.kinds import limits
from quanta_compiler.spec.scalars import is_overlong_number, resolve_plain, surprise

# libyaml where PyYAML was built with it: ten times as fast on a long file.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_NOT_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(slots=True, eq=False)
class Node:
    """A value with its place; `children` mirror a list or mapping, `keys` hold the nodes of a mapping's keys.

    It keeps the parser's marks as they are: a file may hold 150,000 values, and places are only worked out for those
    that a diagnostic points at.
    """

    value: Any
    start: Any
    end: Any
    poisoned: bool = False
    """A problem was reported about the value: whatever stands in its place is not to be judged again."""
    children: "dict[str | int, Node] | None" = None
    keys: "dict[str | int, Node] | None" = None
    weight: int = 1
    """Values in the subtree, aliases counted as often as they are used."""
    height: int = 1


class TextSource:
    """A YAML text as a source of diagnostics."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.lines = _LINE_BREAK.split(text)
        self.root: Node | None = None

    def line(self, number: int) -> str:
        """Return a line by its 1-based number."""
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""

    def span(self, start: Any, end: Any) -> Span:
        """Return the span between two of the parser's marks, cut at the end of its first line."""
        line = start.line + 1
        length = len(self.line(line))
        column = min(start.column, length) + 1
        end_column = end.column + 1 if end.line == start.line else length + 1
        return Span(line, column, max(column + 1, end_column))

    def locate(self, path: DataPath, key: bool) -> tuple[Span | None, str | None]:
        """Return the span and the line of the value at `path` (or of its key), or of what encloses it."""
        node, key_node = self.root, None
        for step in path:
            if node is None or node.children is None or step not in node.children:
                key_node = None
                break
            key_node = node.keys.get(step) if node.keys is not None else None
            node = node.children[step]
        if node is None:
            return None, None
        place = key_node if key and key_node is not None else node
        span = self.span(place.start, place.end)
        return span, self.line(span.line)

    def is_poisoned(self, path: DataPath) -> bool:
        """Say whether the value at `path`, or one on the way to it, was refused while reading."""
        node = self.root
        for step in path:
            if node is None or node.poisoned or node.children is None or step not in node.children:
                break
            node = node.children[step]
        return node is not None and node.poisoned


class DictSource:
    """Data that a program passed in: it has paths, but no lines."""

    name = "<dict>"

    def locate(self, path: DataPath, key: bool) -> tuple[Span | None, str | None]:
        """Return no place: there is none."""
        return None, None

    def is_poisoned(self, path: DataPath) -> bool:
        """Return False: nothing was refused while reading."""
        return False


_NO_KEY = object()
_SKIP = object()


@dataclass(slots=True)
class _Frame:
    """A collection that is still open."""

    node: Node
    key: Any = _NO_KEY
    """For a mapping: the key whose value comes next, `_SKIP` where that value is to be dropped."""
    anchor: str | None = None


class _Builder:
    """Builds nodes from events; one instance per text."""

    def __init__(self, source: TextSource, problems: Problems) -> None:
        self.source = source
        self.problems = problems
        self.stack: list[_Frame] = []
        self.anchors: dict[str, Node | None] = {}
        self.nodes = 0
        self.root: Node | None = None

    def report(self, node: Any, message: str, hint: str | None = None) -> None:
        span = self.source.span(node.start, node.end)
        self.problems.error_at(span, self.source.line(span.line), message, hint)

    def stop(self, node: Any, message: str, hint: str | None = None) -> NoReturn:
        self.report(node, message, hint)
        self.problems.raise_errors()
        raise AssertionError("a problem was reported")

    def build(self, events: Iterable[Any]) -> Node | None:
        actions: dict[type[Any], Callable[[Any], None]] = {
            yaml.ScalarEvent: self.scalar,
            yaml.AliasEvent: self.alias,
            yaml.SequenceStartEvent: self.open,
            yaml.MappingStartEvent: self.open,
            yaml.SequenceEndEvent: self.close,
            yaml.MappingEndEvent: self.close,
            yaml.DocumentStartEvent: self.document,
        }
        for event in events:
            action = actions.get(type(event))
            if action is not None:
                action(event)
        return self.root

    def document(self, event: Any) -> None:
        if self.root is not None:
            node = Node(None, event.start_mark, event.end_mark)
            self.stop(node, "a second document starts here", "put each circuit into a file of its own")

    def check_tag(self, event: Any, node: Node) -> None:
        if event.tag is not None:
            node.poisoned = True
            message = f"the tag {quote(event.tag)} is not allowed"
            self.report(node, message, "a circuit file holds plain values only")

    def scalar(self, event: Any) -> None:
        text: str = event.value
        node = Node(text, event.start_mark, event.end_mark)
        self.check_tag(event, node)
        # A style means quotes or a block scalar. `2048-12-12` and `0x10` are layouts: there the text itself counts, not
        # what YAML takes it for.
        if not event.style and not node.poisoned and not (len(self.stack) == 1 and self.stack[0].key == "layout"):
            self.resolve(node, text)
        self.attach(node, event.anchor)

    def resolve(self, node: Node, text: str) -> None:
        """Give a plain scalar its value."""
        remedy = surprise(text)
        if remedy is None and not is_overlong_number(text):
            node.value = resolve_plain(text)
            return
        node.value, node.poisoned = None, True
        if remedy is not None:
            self.report(node, f"{text} means different things to different YAML readers", remedy)
        else:
            self.report(node, f"a number of {len(text)} characters is not a sensible value here")

    def alias(self, event: Any) -> None:
        here = Node(None, event.start_mark, event.end_mark)
        if event.anchor not in self.anchors:
            self.stop(here, f"the alias {quote(event.anchor)} has no anchor before it")
        node = self.anchors[event.anchor]
        if node is None:
            self.stop(here, f"the alias {quote(event.anchor)} stands inside of what it repeats")
        if len(self.stack) + node.height > limits.NESTING:
            self.stop(here, f"values are nested more than {limits.NESTING} levels deep")
        self.count(node.weight, here)
        self.attach(node, None, counted=True)

    def count(self, weight: int, node: Node) -> None:
        self.nodes += weight
        if self.nodes > limits.NODES:
            hint = "aliases count as often as they are used"
            self.stop(node, f"the file holds more than {limits.NODES:,} values", hint)

    def open(self, event: Any) -> None:
        # The end of a block collection is of no use to a reader: the caret stands at its start.
        node = Node({} if type(event) is yaml.MappingStartEvent else [], event.start_mark, event.end_mark)
        node.children = {}
        if type(event) is yaml.MappingStartEvent:
            node.keys = {}
        if not event.flow_style:
            node.end = node.start
        if len(self.stack) >= limits.NESTING:
            self.stop(node, f"values are nested more than {limits.NESTING} levels deep")
        self.count(1, node)
        self.check_tag(event, node)
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        self.stack.append(_Frame(node, anchor=event.anchor))

    def close(self, event: Any) -> None:
        frame = self.stack.pop()
        if frame.node.end is not frame.node.start and event.end_mark.line == frame.node.start.line:
            frame.node.end = event.end_mark
        self.attach(frame.node, frame.anchor, counted=True)

    def attach(self, node: Node, anchor: str | None, counted: bool = False) -> None:
        """Put a finished node where the innermost open collection expects it."""
        if not counted:
            self.count(1, node)
        if anchor is not None:
            self.anchors[anchor] = node
        if not self.stack:
            self.root = node
            return
        frame = self.stack[-1]
        parent = frame.node
        if parent.keys is None:
            self.adopt(parent, len(parent.value), node)
            parent.value.append(node.value)
        elif frame.key is _NO_KEY:
            frame.key = self.check_key(parent.keys, node)
        else:
            if frame.key is not _SKIP:
                self.adopt(parent, frame.key, node)
                parent.value[frame.key] = node.value
            frame.key = _NO_KEY

    @staticmethod
    def adopt(parent: Node, key: str | int, node: Node) -> None:
        assert parent.children is not None
        parent.children[key] = node
        parent.weight += node.weight
        if parent.height <= node.height:
            parent.height = node.height + 1

    def check_key(self, keys: dict[str | int, Node], node: Node) -> Any:
        """Return the key that `node` stands for, or `_SKIP` after reporting why it is none."""
        if node.poisoned:
            return _SKIP
        key = node.value
        if isinstance(key, bool) or not isinstance(key, str | int):
            self.report(node, "a key must be a word or a position", "quote it if it is meant as text")
            return _SKIP
        if key in keys:
            line = keys[key].start.line + 1
            self.report(node, f"duplicate key {quote(key)}", f"it was first given on line {line}; keep one of the two")
            return _SKIP
        keys[key] = node
        return key


def read_text(source: TextSource, problems: Problems) -> Any:
    """Return the data of a YAML text and keep it in `source`; raise SpecError where nothing is left to go on with."""
    bad = _NOT_YAML.search(source.text)
    if bad is not None:
        before = _LINE_BREAK.split(source.text[: bad.start()])
        span = Span(len(before), len(before[-1]) + 1, len(before[-1]) + 2)
        code = ord(bad.group())
        message = f"the character U+{code:04X} is not allowed in a YAML text"
        problems.error_at(span, source.line(span.line), message, "is this a binary file, or one in another encoding?")
        problems.raise_errors()
    builder = _Builder(source, problems)
    # Hundreds of thousands of small objects, none of them garbage: the collector would take half of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        source.root = builder.build(yaml.parse(source.text, Loader=_Loader))
        if source.root is None:
            problems.error((), "the file is empty", "`quanta new` prints a circuit to start from")
        else:
            return source.root.value
    except yaml.YAMLError as error:
        _report_syntax(source, error, problems)
    finally:
        if collecting:
            gc.enable()
    problems.raise_errors()


def _report_syntax(source: TextSource, error: yaml.YAMLError, problems: Problems) -> None:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        problems.error((), f"this is not YAML: {error}")
        return
    mark = error.problem_mark
    span = source.span(mark, mark)
    problem = error.problem or "cannot be parsed"
    before = source.line(span.line)[: span.column]
    hint = "indent with spaces" if "\t" in before and not before.strip() else _plain_words(source, error, mark)
    if hint is None and error.context is not None and error.context_mark is not None:
        hint = f"{error.context} that starts on line {error.context_mark.line + 1}"
    problems.error_at(span, source.line(span.line), f"YAML syntax: {problem}", hint)


def _plain_words(source: TextSource, error: yaml.MarkedYAMLError, mark: yaml.Mark) -> str | None:
    """Return what is probably meant by the parser's words: an indentation, or a bracket that is not closed."""
    problem, context = error.problem or "", error.context or ""
    if "flow" in context and error.context_mark is not None:
        opened, closed = ("{", "}") if "mapping" in context else ("[", "]")
        return f"the `{opened}` on line {error.context_mark.line + 1} needs its `{closed}`, or a comma is missing"
    line = source.line(mark.line + 1)
    if problem == "mapping values are not allowed in this context":
        above = next((one for one in map(source.line, range(mark.line, 0, -1)) if one.strip()), "")
        if _indentation(line) <= _indentation(above):
            return None
    elif problem.endswith("<document start>"):
        if not source.line(1).startswith(" "):
            return None
    elif not problem.startswith("did not find expected") or line[: mark.column].strip():
        return None
    return "look at the spaces before this line: all keys of a mapping, and all `-` of a list, begin in one column"


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
