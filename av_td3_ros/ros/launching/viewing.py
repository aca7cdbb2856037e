"""What viewers are shown: the shipped files of rviz, rqt and Foxglove for any profile."""
from __future__ import annotations

import re

from av_td3_ros.ros.graph import learner_node, vehicle_nodes, viewing_nodes

SHIPPED = ('embedded', 'ego_vehicle')
"""Profile and vehicle whose topics the files in config/ name, so that they open as they are."""


def for_vehicle(text: str, profile: str, vehicle: str, world: str = '') -> str:
    """
    Return a viewer's file, which is written for SHIPPED, with the topics of another profile.

    A topic is known by the role that is bound to it; one whose role the profile leaves unbound
    stays. The vehicle's name where it stands alone is that of a frame. `world` is that of
    `vehicle_nodes`.
    """
    own = topics_by_role(profile, vehicle, world)
    renamed = {topic: own[role] for role, topic in topics_by_role(*SHIPPED).items()
               if role in own}
    longest_first = sorted(renamed, key=len, reverse=True)
    pattern = re.compile('|'.join([
        *(rf'(?<![\w/]){re.escape(topic)}(?!\w)' for topic in longest_first),
        rf'(?<![\w/]){SHIPPED[1]}(?![\w/])', rf'/{SHIPPED[1]}(?=/)']))

    def replacement(found: re.Match[str]) -> str:
        return renamed.get(found[0]) or found[0].replace(SHIPPED[1], vehicle)

    return pattern.sub(replacement, text)


def topics_by_role(profile: str, vehicle: str, world: str = '') -> dict[tuple[str, str], str]:
    """Return {(node, role): topic} of all nodes of a profile, those that only look included."""
    nodes = [learner_node(profile), *vehicle_nodes(profile, vehicle, recording=True, world=world),
             *viewing_nodes(profile, vehicle, world)]
    return {(spec.name, role): spec.topic(role) for spec in nodes for role in spec.remaps}
