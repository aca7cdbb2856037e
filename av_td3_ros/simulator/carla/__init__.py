"""A CARLA server: its maps, its objects, its weather, its traffic."""
