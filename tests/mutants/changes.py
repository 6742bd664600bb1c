"""What can be wrong with a module, one thing at a time: operators, constants, conditions, and statements left out.

Not changed are what only mypy reads (annotations, `Literal`, protocols), assertions (they state what cannot be
otherwise), what people read (docstrings, and texts with a space in them), and decorators (here they remember, and
decide nothing).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ORDERINGS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_FUNCTIONS = {"max": "min", "min": "max", "any": "all", "all": "any"}
_UNREAD = {"annotation", "returns", "decorator_list", "type_comment"}
_UNSAID = {"Literal", "TypeVar", "ParamSpec", "TYPE_CHECKING", "__all__", "__slots__"}
"""What is made of these, or kept under these names, is for mypy and for the importer."""


class Change(NamedTuple):
    """One thing that is wrong: `before` became `after` in line `line`, in a statement (or the head of one with a block)
    that stands in `lines` and begins with the line `statement`, when it is written in the plainest way (`ast.unparse`).
    `source` makes the whole module as it is then, without comments."""

    line: int
    lines: range
    statement: str
    before: str
    after: str
    source: Callable[[], str]


class _Place(NamedTuple):
    """Where a node stands: in which field of which other node, and how far in when that is a list."""

    parent: ast.AST
    field: str
    nth: int | None
    within: ast.stmt


def changes(source: str) -> Iterator[Change]:
    """Every change to a module, in the order of the code; the source of one is to be made before the next is."""
    tree = ast.parse(source)
    for node, place in _nodes(tree):
        statement = next(line for line in ast.unparse(place.within).splitlines() if not line.startswith("@"))
        for other in _others(node):
            made = partial(_changed, tree, place, other)
            yield Change(node.lineno, _head(place.within), statement, _told(node), _told(other), made)


def _nodes(parent: ast.AST, within: ast.stmt | None = None) -> Iterator[tuple[ast.stmt | ast.expr, _Place]]:
    """Every statement and expression that runs."""
    for field, value in ast.iter_fields(parent):
        if field in _UNREAD:
            continue
        for nth, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(node, ast.AST) or _is_left_alone(parent, node):
                continue
            if isinstance(node, ast.stmt):
                within = node
            if isinstance(node, ast.stmt | ast.expr):
                assert within is not None, "an expression stands in a statement"
                yield node, _Place(parent, field, nth, within)
            yield from _nodes(node, within)


def _told(node: ast.stmt | ast.expr) -> str:
    """The code of a node in one line; of one with a block, its condition."""
    match node:
        case ast.If(test=test) | ast.While(test=test):
            return f"if {ast.unparse(test)}"
        case _:
            return ast.unparse(node)


def _head(node: ast.stmt) -> range:
    """The lines of a statement; without those of its block, if it has one."""
    block = getattr(node, "body", None)
    last = max(node.lineno, block[0].lineno - 1) if block else node.end_lineno or node.lineno
    return range(node.lineno, last + 1)


def _is_left_alone(parent: ast.AST, node: ast.AST) -> bool:
    match node:
        # An expression that is but a constant is a docstring, or the body of a method that is only promised.
        case ast.Assert() | ast.Import() | ast.ImportFrom() | ast.Expr(ast.Constant()):
            return True
        case ast.If(ast.Name("TYPE_CHECKING")) | ast.ClassDef(bases=[ast.Name("Protocol")]):
            return True
        case ast.FunctionDef(decorator_list=[ast.Name("overload")]):
            return True
        case ast.Subscript(ast.Name(name)) | ast.Call(ast.Name(name)) | ast.Assign([ast.Name(name)]):
            return name in _UNSAID
        case _:
            return isinstance(node, ast.Constant) and isinstance(parent, ast.JoinedStr)


def _others(node: ast.stmt | ast.expr) -> Iterator[ast.stmt | ast.expr]:
    if isinstance(node, ast.stmt):
        yield from _other_statements(node)
    else:
        yield from _other_expressions(node)


def _other_statements(node: ast.stmt) -> Iterator[ast.stmt]:
    match node:
        case ast.Expr() | ast.Raise() | ast.Delete() | ast.Return(value=None) | ast.AugAssign():
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
        case ast.If(test, body, orelse) if not _is_turned_already(test):
            yield ast.If(_negated(test), body, orelse)
        case ast.While(test, body, orelse) if not _is_turned_already(test):
            yield ast.While(_negated(test), body, orelse)
        case _:
            pass
    if isinstance(node, ast.AugAssign) and (operator := _OPERATORS.get(type(node.op))):
        yield ast.AugAssign(node.target, operator(), node.value)


def _other_expressions(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.Compare(left, ops, comparators):
            for index, op in enumerate(ops):
                others = [*ops[:index], _COMPARISONS[type(op)](), *ops[index + 1 :]]
                yield ast.Compare(left, others, comparators)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield operand
        case ast.BinOp(left, op, right) if type(op) in _OPERATORS:
            yield ast.BinOp(left, _OPERATORS[type(op)](), right)
        case ast.IfExp(test, body, orelse) if not _is_turned_already(test):
            yield ast.IfExp(_negated(test), body, orelse)
        case ast.Call(ast.Name(name), args, keywords) if name in _FUNCTIONS:
            yield ast.Call(ast.Name(_FUNCTIONS[name]), args, keywords)
        case ast.Constant(value):
            yield from [ast.Constant(other) for other in _other_constants(value)]
        case _:
            pass


def _other_constants(value: object) -> Iterator[bool | float | str | bytes]:
    match value:
        case bool():
            yield not value
        case int() | float():
            yield value + 1
        case str() if not any(map(str.isspace, value)):
            yield f"{value}~"
        case bytes() if not any(map(str.isspace, value.decode("latin-1"))):
            yield value + b"~"
        case _:
            pass


def _negated(test: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), test)


def _is_turned_already(test: ast.expr) -> bool:
    """Whether a change to the condition itself is its opposite."""
    match test:
        case ast.Compare(ops=[op]):
            return not isinstance(op, _ORDERINGS)
        case ast.UnaryOp(ast.Not()):
            return True
        case _:
            return False


def _changed(tree: ast.Module, place: _Place, other: ast.AST) -> str:
    """The source of a tree in which another node stands at a place; the tree itself stays as it is."""
    node = _put(place, other)
    source = ast.unparse(ast.fix_missing_locations(tree))
    _put(place, node)
    return source


def _put(place: _Place, node: ast.AST) -> ast.AST:
    """Put a node at its place; what stood there."""
    held: Any = getattr(place.parent, place.field)
    old: ast.AST = held if place.nth is None else held[place.nth]
    if place.nth is None:
        setattr(place.parent, place.field, node)
    else:
        held[place.nth] = node
    return old
