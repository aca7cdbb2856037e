"""From a camera image to the frames that the networks see."""
