"""The weathers that CARLA has names for."""
from __future__ import annotations

import carla


def weather_presets() -> dict[str, carla.WeatherParameters]:
    """Return CARLA's own weathers by name, such as ClearNoon."""
    named = {name: getattr(carla.WeatherParameters, name) for name in dir(carla.WeatherParameters)}
    return {name: value for name, value in named.items()
            if isinstance(value, carla.WeatherParameters)}
