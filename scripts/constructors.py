"""What the syntax tree of a class tells about its constructor; `scripts.structure` counts it."""

import ast

MAX_POSITIONAL = 2
"""So many required arguments of a constructor may be given by place: the one or two that the class is about."""


def own_arguments(node: ast.ClassDef) -> int:
    r"""Number of constructor arguments that a class declares itself, ``*args`` and ``**kwargs`` left aside.

    >>> own_arguments(ast.parse("class A:\n def __init__(self, a, *, b=1, **rest): ...").body[0])
    2
    """
    constructor = find_constructor(node)
    if constructor is not None:
        given = constructor.args
        return len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs) - 1
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return sum(isinstance(item, ast.AnnAssign) and "ClassVar" not in ast.unparse(item) for item in node.body)
    return 0


def positional_arguments(node: ast.ClassDef) -> list[str]:
    r"""Names of the constructor arguments that can be given by place and should be given by name.

    What has a default is an option and wants its name; of the required ones `MAX_POSITIONAL` may stand by place.
    Constructors with ``*args``, which hand on what another signature names, are not counted, and neither are named
    tuples, whose fields have places by definition.

    >>> positional_arguments(ast.parse("class A:\n def __init__(self, a, b=1, *, c=2): ...").body[0])
    ['b']
    >>> positional_arguments(ast.parse("@dataclass\nclass A:\n a: int\n b: int\n c: int").body[0])
    ['c']
    """
    constructor = find_constructor(node)
    if constructor is not None:
        given = constructor.args
        names = [item.arg for item in given.posonlyargs + given.args][1:]
        required = len(names) - len(given.defaults)
        return [] if given.vararg else names[min(required, MAX_POSITIONAL) :]
    decorators = [ast.unparse(item) for item in node.decorator_list if "dataclass" in ast.unparse(item)]
    if not decorators or "kw_only=True" in decorators[0]:
        return []
    fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and "ClassVar" not in ast.unparse(item)]
    required = sum(item.value is None for item in fields)
    return [ast.unparse(item.target) for item in fields[min(required, MAX_POSITIONAL) :]]


def find_constructor(node: ast.ClassDef) -> ast.FunctionDef | None:
    """The class's own ``__init__``."""
    return next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None)


def body_lines(function: ast.FunctionDef) -> int:
    """Lines from the first statement behind the docstring to the end."""
    first = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (function.end_lineno or 0) - first[0].lineno + 1 if first else 0
