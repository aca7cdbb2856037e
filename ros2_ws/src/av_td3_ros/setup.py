"""What colcon installs; the folders beside this file are links to those of the repository."""
import os

from setuptools import find_packages, setup

NAME = 'av_td3_ros'
NODES = ('environment_node', 'policy_node', 'control_node', 'recorder_node', 'learner_node',
         'simulator_node', 'mirror_node', 'stand_in_vehicle_node', 'inspection_node',
         'vehicle_side')


def tree(folder):
    """Return the files below `folder` as `data_files` of the package's share directory."""
    return [(os.path.join('share', NAME, directory), [os.path.join(directory, f) for f in files])
            for directory, _, files in os.walk(folder) if not directory.endswith('__pycache__')]


setup(
    name=NAME,
    version='0.1.0',
    description='Vehicle-in-the-loop driving with visual TD3 on ROS 2',
    license='Apache-2.0',
    maintainer='av_td3_ros maintainers',
    maintainer_email='maintainers@av-td3-ros.example',
    packages=find_packages(include=[NAME, f'{NAME}.*']),
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        ('bin', ['bin/av-td3']),
        *tree('config'),
        *tree('launch'),
    ],
    install_requires=['setuptools'],
    extras_require={'test': ['pytest']},
    entry_points={'console_scripts': [
        *(f'{node} = {NAME}.ros.starting:{node}' for node in NODES),
        f'av-td3 = {NAME}.cli.main:main',
    ]},
    zip_safe=True,
)
