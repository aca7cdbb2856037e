"""Driving without ROS: routes, the policy's observation, reward, endings, limits and metrics."""
