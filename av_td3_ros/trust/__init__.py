"""Whose weights may drive: keys, signatures, the file of trusted keys. Knows no ROS."""
