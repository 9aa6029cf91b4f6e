"""Declared ROS parameters: every one with a description and what values it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

__all__ = ["NodeParameter", "declare_parameters"]


@dataclass(frozen=True)
class NodeParameter:
    """One parameter of a node."""

    name: str
    """Name within the node."""
    default: Any
    """Default value; its type is the parameter's type."""
    description: str
    """One sentence for ``ros2 param describe``, with the unit."""
    minimum: float | None = None
    """Smallest value of a number; needs ``maximum``."""
    maximum: float | None = None
    """Largest value of a number."""
    choices: tuple[Any, ...] = ()
    """The only values allowed; empty: any."""
    dynamic: bool = False
    """Takes effect at once. Others are read when the node is configured and only change before."""

    @property
    def is_switch(self) -> bool:
        """Whether ``on`` and ``off`` are among the choices: YAML and the command line turn these
        words into truth values unless they are quoted, so both are taken."""
        return {"on", "off"} <= set(self.choices)

    def read(self, value: Any) -> Any:
        """A value as set, as one of the choices: a switch's truth value becomes its word."""
        return ("on" if value else "off") if self.is_switch and isinstance(value, bool) else value

    def descriptor(self) -> ParameterDescriptor:
        """The descriptor that the parameter is declared with."""
        descriptor = ParameterDescriptor(
            description=self.description, dynamic_typing=self.is_switch
        )
        if self.choices:
            descriptor.additional_constraints = "one of: " + ", ".join(map(str, self.choices))
        elif not self.dynamic:
            descriptor.additional_constraints = "read when the node is configured"
        if self.minimum is not None and self.maximum is not None:
            if isinstance(self.default, int):
                integers = IntegerRange(from_value=int(self.minimum), to_value=int(self.maximum))
                descriptor.integer_range = [integers]
            else:
                floats = FloatingPointRange(
                    from_value=float(self.minimum), to_value=float(self.maximum)
                )
                descriptor.floating_point_range = [floats]
        return descriptor


def declare_parameters(
    node: Node,
    parameters: Sequence[NodeParameter],
    is_configured: Callable[[], bool],
) -> None:
    """Declare parameters and guard their later changes.

    Args:
        node: the node.
        parameters: what to declare.
        is_configured: says whether the node has read its parameters; while it has, only dynamic
            ones may change.

    Raises:
        rclpy.exceptions.InvalidParameterValueException: a start value outside the allowed ones.
        rclpy.exceptions.InvalidParameterTypeException: a start value of another type.
    """
    by_name = {parameter.name: parameter for parameter in parameters}

    def check(changes: list[Parameter[Any]]) -> SetParametersResult:
        for change in changes:
            known = by_name.get(change.name)
            if known is None:
                continue
            if known.choices and known.read(change.value) not in known.choices:
                allowed = ", ".join(map(str, known.choices))
                return SetParametersResult(
                    successful=False,
                    reason=f"{change.name} = {change.value!r} is not one of: {allowed}",
                )
            if is_configured() and not known.dynamic:
                return SetParametersResult(
                    successful=False,
                    reason=f"{change.name} is read when the node is configured: "
                    "deactivate and clean up the node before changing it",
                )
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(check)
    for parameter in parameters:
        node.declare_parameter(parameter.name, parameter.default, parameter.descriptor())
