"""What is known of the vehicle and its surroundings at one camera frame."""
