"""What pydantic finds wrong with the content of a file, as an error of the package says it."""

from __future__ import annotations

from pydantic import ValidationError

from ...errors import shown


def first_problem(error: ValidationError, whole: str) -> str:
    """The place of the first problem, or ``whole`` where it is the whole value; what stands there; and what is wrong with it.

    >>> from pydantic import TypeAdapter
    >>> try:
    ...     TypeAdapter(dict[str, int]).validate_python({"rows": "many"}, strict=True)
    ... except ValidationError as error:
    ...     print(first_problem(error, "the description"))
    rows is 'many': Input should be a valid integer
    """
    problem = error.errors(include_url=False)[0]
    place = ".".join(map(str, problem["loc"])) or whole
    return f"{place} is {shown(problem['input'])}: {problem['msg'].removeprefix('Value error, ')}"
