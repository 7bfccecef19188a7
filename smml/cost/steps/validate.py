"""A request to AWS as data: checked against the API's own model without an account, sent only to an endpoint that is named."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from botocore.model import ServiceModel, Shape, StructureShape
from botocore.session import Session, get_session
from botocore.validate import ParamValidator

from smml.errors import UserError


@dataclass(frozen=True)
class Request:
    """`operation` of `service` as botocore names them, with its parameters; `why` says what it does for the step."""

    service: str
    operation: str
    parameters: dict[str, Any]
    why: str = ""

    @property
    def name(self) -> str:
        """Such as "sagemaker:CreateTrainingJob"."""
        return f"{self.service}:{self.operation}"


def problems(request: Request) -> list[str]:
    """What the API's model says against the request: missing, unknown and mistyped fields, ranges, enumerations, patterns.

    Raises UserError for a service or operation that botocore does not know.
    """
    shape = input_shape(request)
    report = ParamValidator().validate(request.parameters, shape)
    found = report.generate_report().splitlines() if report.has_errors() else []
    return found + list(_constraints(shape, request.parameters, request.operation))


def send(
    request: Request, endpoint_url: str, *, region: str = "us-east-1", **client: Any
) -> dict[str, Any]:
    """Send the request to `endpoint_url` and return the answer; `client` goes to boto3.client.

    There is no default endpoint: a stand-in on this machine costs nothing, an account does. Raises UserError where the
    request breaks the API's model, with its problems.
    """
    import boto3
    from botocore import xform_name

    if not endpoint_url:
        raise UserError(
            "no endpoint is named, nothing is sent: give a stand-in's address such as http://127.0.0.1:5000."
        )
    if wrong := problems(request):
        raise UserError(f"{request.name} is not sent: {' '.join(wrong)} Correct the request.")
    talking = boto3.client(request.service, region_name=region, endpoint_url=endpoint_url, **client)
    return getattr(talking, xform_name(request.operation))(**request.parameters)


@lru_cache
def _services() -> frozenset[str]:
    return frozenset(_session().get_available_services())


@lru_cache
def _session() -> Session:
    return get_session()


@lru_cache
def _model(service: str) -> ServiceModel:
    return _session().get_service_model(service)


def input_shape(request: Request) -> StructureShape:
    """What the operation takes, as botocore's model has it. Raises UserError for a name that botocore does not know."""
    if request.service not in _services():
        raise UserError(
            f"botocore knows no service {request.service!r}; give a name such as sagemaker or s3."
        )
    model = _model(request.service)
    if request.operation not in model.operation_names:
        raise UserError(
            f"{request.service} has no operation {request.operation!r}; give a name such as "
            f"{model.operation_names[0]}."
        )
    return model.operation_model(request.operation).input_shape


def _constraints(shape: Shape, value: Any, path: str) -> Iterator[str]:
    """What botocore's own validator leaves to the service: enumerations, patterns, upper bounds."""
    if shape.type_name == "structure":
        for name, inner in shape.members.items():
            if isinstance(value, dict) and name in value:
                yield from _constraints(inner, value[name], f"{path}.{name}")
    elif shape.type_name == "list":
        for number, item in enumerate(value if isinstance(value, list | tuple) else ()):
            yield from _constraints(shape.member, item, f"{path}[{number}]")
        yield from _largest(shape, value, path)
    elif shape.type_name == "map":
        for key, item in value.items() if isinstance(value, dict) else ():
            yield from _constraints(shape.key, key, f"{path} key")
            yield from _constraints(shape.value, item, f"{path}.{key}")
    elif shape.type_name == "string" and isinstance(value, str):
        allowed = shape.enum
        if allowed and value not in allowed:
            yield f"{path} is {value!r}; allowed are {', '.join(allowed[:8])}{' …' if len(allowed) > 8 else ''}."
        pattern = shape.metadata.get("pattern")
        if pattern and not _matches(pattern, value):
            yield f"{path} is {value!r}; it must match {pattern}."
        yield from _largest(shape, value, path)
    elif shape.type_name in ("integer", "long", "float", "double"):
        yield from _largest(shape, value, path)


def _largest(shape: Shape, value: Any, path: str) -> Iterator[str]:
    most = shape.metadata.get("max")
    size = len(value) if isinstance(value, str | list | tuple) else value
    if most is not None and isinstance(size, int | float) and size > most:
        yield f"{path} is {size:,} long or large; at most {most:,} is allowed."


def _matches(pattern: str, value: str) -> bool:
    """Whether the whole value matches; a pattern that only Java can read does not speak against it."""
    try:
        return re.fullmatch(pattern, value) is not None
    except re.error:
        return True
