"""Declare settings dataclasses as ROS parameters: described, ranged, nothing unknown."""
from __future__ import annotations

import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from av_td3_ros.settings import Setting, described_fields, flatten, from_mapping

T = TypeVar('T')
NONE = 'none'
_NOT_OURS = ('use_sim_time', 'start_type_description_service', 'qos_overrides')
_BIG = 9.0e15


def declare_settings(node: Node, settings_type: type[T]) -> T:
    """
    Declare every setting as a parameter of `node` and return the settings as given.

    Raises ValueError for an unknown key (with the nearest known one), a wrong type or a value out
    of range. None is written `none` in a parameter file, an empty list `['']`: ROS has no type for
    an empty one.
    """
    given = {name: [] if parameter.type_ == Parameter.Type.NOT_SET else parameter.value
             for name, parameter in node._parameter_overrides.items()
             if name.split('.')[0] not in _NOT_OURS}
    known = {key: (kind, about) for key, kind, about in described_fields(settings_type)}
    settings = from_mapping(settings_type, from_ros(given), node.get_name())
    for key, value in flatten(settings).items():
        kind, about = known[key]
        node.declare_parameter(
            key, _to_ros(value), _descriptor(kind, about), ignore_override=True)
    return settings


def accept_changes(node: Node, settings: T, apply: Callable[[T], None]) -> None:
    """
    Let live settings change at run time: check the whole, then `apply` the new settings.

    An impossible value, or one that is not live, is rejected with the reason.
    """
    current = [settings]
    about = {key: one for key, _, one in described_fields(type(settings))}

    def on_change(parameters: list[Parameter]) -> SetParametersResult:
        values = flatten(current[0])
        changes = from_ros({one.name: one.value for one in parameters if one.name in about})
        for key in changes:
            if not about[key].live:
                return SetParametersResult(
                    successful=False, reason=f'{key} is read at start only: restart the node')
        try:
            changed = from_mapping(type(settings), {**values, **changes}, node.get_name())
            apply(changed)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        current[0] = changed
        for key, value in changes.items():
            node.get_logger().info(f'{key}: {values[key]} -> {value}')
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(on_change)


def to_ros(settings: Any) -> dict[str, Any]:
    """Return {dotted key: value} as a ROS parameter file holds it."""
    return {key: _to_ros(value) for key, value in flatten(settings).items()}


def from_ros(values: dict[str, Any]) -> dict[str, Any]:
    """Undo `to_ros`."""
    return {key: _from_ros(value) for key, value in values.items()}


def _to_ros(value: Any) -> Any:
    if value is None:
        return NONE
    return [''] if value == [] else value


def _from_ros(value: Any) -> Any:
    if value == NONE:
        return None
    if hasattr(value, '__len__') and not isinstance(value, str):
        return [one for one in value if one != '']
    return value


def _descriptor(kind: Any, about: Setting) -> ParameterDescriptor:
    optional = isinstance(kind, types.UnionType)
    if optional:
        kind = next(one for one in typing.get_args(kind) if one is not type(None))
    descriptor = ParameterDescriptor(
        description=about.description, read_only=not about.live, dynamic_typing=optional)
    if about.choices is not None:
        descriptor.additional_constraints = f'one of {list(about.choices)}'
    if about.minimum is None and about.maximum is None:
        return descriptor
    low = -_BIG if about.minimum is None else about.minimum
    high = _BIG if about.maximum is None else about.maximum
    if kind is float and not optional:
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(low), to_value=float(high))]
    elif kind is int and not optional:
        descriptor.integer_range = [
            IntegerRange(from_value=int(low), to_value=int(high), step=1)]
    else:
        descriptor.additional_constraints = f'{low} to {high}'
    return descriptor
