"""The ego vehicle: standstill, pedals, steering, grip, and the model that it comes from."""
from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from vehiclemodels.vehicle_dynamics_st import vehicle_dynamics_st
from vehiclemodels.vehicle_parameters import setup_vehicle_parameters

from av_td3_ros.driving.route.geometry import Pose
from av_td3_ros.simulator.vehicle.dynamics import (
    EgoVehicle,
    SingleTrack,
    VehicleCommand,
    VehicleSettings,
)

START = Pose(0.0, 0.0, 0.0)


def vehicle(speed: float = 0.0, **settings: float) -> EgoVehicle:
    """Return a car at the origin that heads east at `speed` m/s."""
    made = EgoVehicle(VehicleSettings(**settings))
    made.reset(START, speed)
    return made


def drive(car: EgoVehicle, seconds: float, **command: float) -> None:
    for _ in range(round(seconds / 0.05)):
        car.step(VehicleCommand(**command), 0.05)


def test_a_car_without_commands_stands_still_for_ever() -> None:
    car = EgoVehicle()
    car.reset(Pose(3.0, -2.0, 1.0))
    drive(car, 60.0)
    assert (car.x, car.y, car.yaw, car.speed) == (3.0, -2.0, 1.0, 0.0)


def test_steering_at_standstill_turns_the_wheels_only() -> None:
    car = vehicle()
    drive(car, 2.0, steer=1.0)
    assert car.steering_angle == pytest.approx(0.6)
    assert (car.x, car.y, car.yaw, car.yaw_rate, car.lateral_speed) == (0.0, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize('speed', [0.3, 3.0, 12.0, 30.0])
def test_brakes_stop_the_car_and_never_move_it_backwards(speed: float) -> None:
    car = vehicle(speed)
    farthest = 0.0
    for _ in range(160):
        car.step(VehicleCommand(brake=1.0, steer=0.1), 0.05)
        assert car.speed >= 0.0
        assert car.x >= farthest - 1e-9 or speed == 30.0
        farthest = max(farthest, car.x)
    assert car.speed == 0.0
    place = (car.x, car.y, car.yaw)
    drive(car, 2.0, brake=1.0)
    assert (car.x, car.y, car.yaw) == place


def test_stopping_distance_is_the_textbook_one() -> None:
    car = vehicle(20.0)
    drive(car, 5.0, brake=1.0)
    # 8 m/s^2 by the brakes and 0.6 by engine, air and rolling; the pedal takes 1/6 s.
    assert car.x == pytest.approx(20.0 ** 2 / 17.2 + 20.0 / 12.0, abs=0.5)


def test_full_throttle_reaches_100_km_h_like_a_real_320i() -> None:
    car, seconds = vehicle(), 0.0
    while car.speed < 100.0 / 3.6:
        car.step(VehicleCommand(throttle=1.0), 0.05)
        seconds += 0.05
    assert 7.0 < seconds < 10.0
    assert car.y == 0.0


def test_coasting_slows_down_and_ends_at_rest() -> None:
    car = vehicle(5.0)
    drive(car, 3.0)
    assert 2.0 < car.speed < 4.5
    drive(car, 60.0)
    assert car.speed == 0.0


def test_pedals_and_steering_take_their_time() -> None:
    car = vehicle(5.0)
    car.step(VehicleCommand(throttle=1.0, steer=-1.0), 0.05)
    assert car.throttle == pytest.approx(0.3)
    assert car.steering_angle == pytest.approx(-0.04)


def test_positive_steer_turns_left() -> None:
    car = vehicle(8.0)
    drive(car, 2.0, steer=0.2, throttle=0.2)
    assert car.yaw > 0.5
    assert car.y > 1.0
    assert car.yaw_rate > 0.0


def test_slow_circle_has_the_radius_of_the_geometry() -> None:
    car = vehicle(1.0, rolling_resistance=0.0, engine_brake=0.0, drag_area=0.0)
    drive(car, 3.0, steer=0.5)
    turn = math.tan(0.3) / car.wheelbase  # of the rear axle, 1/m
    assert car.yaw_rate == pytest.approx(car.speed * turn, rel=1e-3)
    radius = math.hypot(1.0 / turn, car.to_rear_axle)
    before = (car.x, car.y)
    half = math.pi * radius / math.hypot(car.speed, car.lateral_speed)
    for _ in range(1000):
        car.step(VehicleCommand(steer=0.5), half / 1000)
    assert math.dist(before, (car.x, car.y)) == pytest.approx(2.0 * radius, rel=1e-3)


def test_gentle_driving_is_that_of_commonroad_vehicle_models() -> None:
    parameters = setup_vehicle_parameters(2)
    car = vehicle(15.0, rolling_resistance=0.0, engine_brake=0.0, drag_area=0.0,
                  steering_rate=5.0)
    reference = np.array([0.0, 0.0, 0.0, 15.0, 0.0, 0.0, 0.0])
    for step in range(100):
        steer = 0.03 * math.sin(0.1 * step)  # a lane change of 1.5 m/s^2
        car.step(VehicleCommand(steer=steer / 0.6), 0.05)
        reference[2] = car.steering_angle
        reference = solve_ivp(
            lambda _, state: vehicle_dynamics_st(state.tolist(), [0.0, 0.0], parameters),
            (0.0, 0.05), reference, rtol=1e-8, atol=1e-10).y[:, -1]
    assert abs(reference[1]) > 3.0
    # Both saturating tyres and scrub are left of the linear model; at 1.5 m/s^2 they are small.
    assert car.y == pytest.approx(reference[1], abs=0.25)
    assert car.x == pytest.approx(reference[0], abs=0.25)
    assert car.yaw == pytest.approx(reference[4], abs=0.02)


@pytest.mark.parametrize('grip', [1.0, 0.4])
def test_no_manoeuvre_beats_the_grip_of_the_road(grip: float) -> None:
    rng = np.random.default_rng(5)
    car = vehicle(30.0, grip=grip, steering_rate=0.4)  # the model's own steering rack
    limit = 1.05 * car.tyre_friction * grip * 9.81
    for _ in range(100):
        command = VehicleCommand(*rng.uniform([0.0, -1.0, 0.0], [1.0, 1.0, 0.5]))
        for _ in range(8):
            car.step(command, 0.05)
            assert math.isfinite(car.x + car.y + car.yaw + car.speed + car.yaw_rate)
            assert math.hypot(*car.acceleration) < 1.15 * limit
            assert abs(car.speed) < 45.0


def test_less_grip_runs_wider() -> None:
    swept = []
    for grip in (1.0, 0.3):
        car = vehicle(15.0, grip=grip)
        drive(car, 1.5, steer=0.4)
        swept.append(car.yaw)
    assert 0.0 < swept[1] < 0.6 * swept[0]


def test_steady_curve_has_the_lateral_acceleration_of_its_radius() -> None:
    car = vehicle(10.0)
    for _ in range(100):
        car.step(VehicleCommand(steer=0.1, throttle=0.08 + 0.2 * (10.0 - car.speed)), 0.05)
    speed = math.hypot(car.speed, car.lateral_speed)
    assert car.acceleration[1] == pytest.approx(speed * car.yaw_rate, rel=0.02)
    assert car.acceleration[0] == pytest.approx(0.0, abs=0.1)


def test_speed_is_continuous_between_the_slow_and_the_fast_model() -> None:
    car = vehicle()
    rates = []
    for _ in range(100):
        car.step(VehicleCommand(throttle=0.5, steer=0.4), 0.05)
        rates.append(car.yaw_rate)
    assert np.abs(np.diff(rates)).max() < 0.1
    assert car.speed > 5.0


def test_reverse_drives_backwards_up_to_its_top_speed() -> None:
    car = vehicle()
    for _ in range(200):
        car.step(VehicleCommand(throttle=1.0, reverse=True), 0.05)
    assert -5.1 < car.speed < -4.0
    assert car.x < -20.0
    drive(car, 3.0, brake=1.0)
    assert car.speed == 0.0


def test_reversing_with_the_wheels_to_the_left_brings_the_tail_left() -> None:
    car = vehicle()
    for _ in range(60):
        car.step(VehicleCommand(throttle=0.5, steer=0.5, reverse=True), 0.05)
    assert car.yaw_rate < 0.0
    assert car.y > 0.0


def test_the_hand_brake_stops_and_holds_against_little_throttle() -> None:
    car = vehicle(5.0)
    for _ in range(60):
        car.step(VehicleCommand(hand_brake=True), 0.05)
    assert car.speed == 0.0
    for _ in range(20):
        car.step(VehicleCommand(throttle=0.5, hand_brake=True), 0.05)
    assert car.speed == 0.0


def test_two_half_steps_are_one_step() -> None:
    one, other = vehicle(10.0), vehicle(10.0)
    for _ in range(20):
        one.step(VehicleCommand(throttle=0.4, steer=0.3), 0.1)
        other.step(VehicleCommand(throttle=0.4, steer=0.3), 0.05)
        other.step(VehicleCommand(throttle=0.4, steer=0.3), 0.05)
    assert (one.x, one.y, one.yaw, one.speed) == pytest.approx(
        (other.x, other.y, other.yaw, other.speed), abs=1e-9)


def test_reset_and_set_velocity_leave_nothing_of_the_past() -> None:
    car = vehicle(20.0)
    drive(car, 2.0, steer=1.0, throttle=1.0)
    car.reset(Pose(1.0, 2.0, 3.0))
    assert (car.x, car.y, car.yaw, car.speed) == (1.0, 2.0, 3.0, 0.0)
    drive(car, 1.0)
    assert (car.x, car.y, car.yaw) == (1.0, 2.0, 3.0)
    car.set_velocity(4.0)
    assert (car.speed, car.lateral_speed, car.yaw_rate) == (4.0, 0.0, 0.0)


def test_commands_are_cut_to_their_range_and_never_nan() -> None:
    command = VehicleCommand(throttle=3.0, steer=-2.0, brake=-1.0)
    assert (command.throttle, command.steer, command.brake) == (1.0, -1.0, 0.0)
    with pytest.raises(ValueError, match='steer = nan is not finite'):
        VehicleCommand(steer=math.nan)
    with pytest.raises(ValueError, match='dt = 0'):
        EgoVehicle().step(VehicleCommand(), 0.0)


@pytest.mark.parametrize('model', [1, 2, 3])
@pytest.mark.parametrize('speed', [0.0, 2.5, 10.0, 30.0])
def test_every_car_goes_straight_again_after_a_jerk_of_the_wheel(model: int, speed: float) -> None:
    car = vehicle(speed, model=model)
    drive(car, 0.5, steer=0.3, throttle=0.3)
    drive(car, 4.0, throttle=0.3)
    assert car.speed > 1.0
    assert car.yaw_rate == pytest.approx(0.0, abs=0.01)
    assert car.lateral_speed == pytest.approx(0.0, abs=0.05)


def test_info_describes_the_car() -> None:
    info = vehicle().info()
    assert info.type == 'vehicle.bmw.320i'
    assert info.mass == pytest.approx(1093.3, abs=0.1)
    assert (info.length, info.width) == (4.508, 1.61)
    assert [wheel.max_steer_angle for wheel in info.wheels] == [0.6, 0.6, 0.0, 0.0]
    assert info.wheels[0].x - info.wheels[2].x == pytest.approx(info.wheelbase)
    assert info.wheels[0].y > 0.0 > info.wheels[1].y


@pytest.mark.parametrize('model', [1, 2, 3])
def test_the_single_track_model_is_that_of_the_package_to_the_last_bit(model: int) -> None:
    parameters = setup_vehicle_parameters(model)
    track, random = SingleTrack(parameters), np.random.default_rng(model)
    for steering, speed, yaw_rate, slip in random.uniform(
            (-1.0, 0.1, -2.0, -1.0), (1.0, 50.0, 2.0, 1.0), (500, 4)).tolist():
        theirs = vehicle_dynamics_st([0.0, 0.0, steering, speed, 0.3, yaw_rate, slip],
                                     [0.0, 0.0], parameters)
        assert list(track.derivative(steering, speed, yaw_rate, slip)) == theirs[5:]
