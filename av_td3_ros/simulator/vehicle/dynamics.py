"""The ego vehicle's motion: commonroad-vehicle-models' single-track car with its actuators."""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from vehiclemodels.utils.vehicle_dynamics_ks_cog import vehicle_dynamics_ks_cog
from vehiclemodels.vehicle_parameters import setup_vehicle_parameters

from av_td3_ros.driving.route.geometry import Pose, wrap_angle
from av_td3_ros.settings import setting

GRAVITY = 9.81  # m/s^2, as in commonroad-vehicle-models
AIR_DENSITY = 1.2  # kg/m^3
LONGEST_SUBSTEP = 0.01  # s
MODELS = {1: 'vehicle.ford.escort', 2: 'vehicle.bmw.320i', 3: 'vehicle.vw.vanagon'}
# Tyre slip is the sideways speed over the forward speed, so the single-track equations grow stiff
# towards standstill; over this range of speeds (m/s) they take over from the kinematic ones.
BLEND_FROM, BLEND_TO = 1.5, 3.5
FRONT_GRIP = 0.9  # of the rear axle's, so that the car runs wide rather than round


@dataclasses.dataclass(frozen=True)
class VehicleSettings:
    """Choose the car and the limits of its actuators."""

    model: int = setting(2, "commonroad-vehicle-models' parameter set: "
                         '1 Ford Escort, 2 BMW 320i, 3 VW Vanagon', choices=tuple(MODELS))
    max_steering_angle: float = setting(0.6, 'front wheel angle at steer = 1, rad',
                                        minimum=0.05, maximum=1.0)
    steering_rate: float = setting(0.8, 'fastest change of the front wheel angle, rad/s',
                                   minimum=0.05, maximum=5.0)
    max_acceleration: float = setting(4.0, 'acceleration at full throttle and low speed, m/s^2',
                                      minimum=0.1, maximum=10.0)
    max_power: float = setting(90.0, 'power at the wheels, kW', minimum=5.0, maximum=500.0)
    max_deceleration: float = setting(8.0, 'deceleration at full brake on a dry road, m/s^2',
                                      minimum=1.0, maximum=12.0)
    hand_brake_deceleration: float = setting(3.5, 'deceleration by the hand brake, m/s^2',
                                             minimum=0.5, maximum=12.0)
    max_reverse_speed: float = setting(5.0, 'top speed in reverse, m/s', minimum=0.5,
                                       maximum=10.0)
    pedal_rate: float = setting(6.0, 'fastest change of throttle and brake, full strokes per s',
                                minimum=0.5, maximum=100.0)
    drag_area: float = setting(0.65, 'air drag coefficient times frontal area, m^2',
                               minimum=0.0, maximum=5.0)
    rolling_resistance: float = setting(0.012, 'rolling resistance over weight',
                                        minimum=0.0, maximum=0.2)
    engine_brake: float = setting(0.4, 'deceleration by the engine without throttle, m/s^2',
                                  minimum=0.0, maximum=3.0)
    grip: float = setting(1.0, 'road friction, 1 = dry asphalt', minimum=0.05, maximum=1.5)


@dataclasses.dataclass(frozen=True)
class VehicleCommand:
    """
    Hold what the driver does: throttle and brake in [0, 1], steer in [-1, 1] (+ = left).

    Values outside are cut to the range; raises ValueError for one that is not finite.
    """

    throttle: float = 0.0
    steer: float = 0.0
    brake: float = 0.0
    hand_brake: bool = False
    reverse: bool = False

    def __post_init__(self) -> None:
        """Refuse what is not finite and cut the rest to its range."""
        for name, low in (('throttle', 0.0), ('steer', -1.0), ('brake', 0.0)):
            value = float(getattr(self, name))
            if not math.isfinite(value):
                raise ValueError(f'VehicleCommand: {name} = {value} is not finite; '
                                 'send a brake command instead')
            object.__setattr__(self, name, min(max(value, low), 1.0))


@dataclasses.dataclass(frozen=True)
class WheelInfo:
    """Hold one wheel: its place on the vehicle in m, radius, steering limit (rad) and friction."""

    x: float
    y: float
    radius: float
    max_steer_angle: float
    tire_friction: float
    max_brake_torque: float
    max_handbrake_torque: float


@dataclasses.dataclass(frozen=True)
class VehicleInfo:
    """Hold what does not change about a vehicle (SI units), front left wheel first."""

    type: str
    mass: float
    moment_of_inertia: float
    drag_coefficient: float
    centre_of_mass: tuple[float, float, float]
    length: float
    width: float
    height: float
    wheelbase: float
    wheels: tuple[WheelInfo, ...]


class SingleTrack:
    """
    Return what `vehicle_dynamics_st` of commonroad-vehicle-models does, to the last bit.

    For a car that neither accelerates nor turns its wheels, at 0.1 m/s and more: what depends on
    the parameters alone is worked out once, which makes it four times as fast.
    """

    def __init__(self, parameters: Any) -> None:
        """Take the model's parameters."""
        front, rear = parameters.a, parameters.b
        friction, mass, inertia = parameters.tire.p_dy1, parameters.m, parameters.I_z
        stiffness = -parameters.tire.p_ky1 / parameters.tire.p_dy1
        on_front, on_rear = stiffness * (GRAVITY * rear), stiffness * (GRAVITY * front)
        self._friction, self._wheelbase, self._inertia = friction, rear + front, inertia
        self._scale = -friction * mass
        self._damping = (front ** 2 * stiffness * (GRAVITY * rear)
                         + rear ** 2 * stiffness * (GRAVITY * front))
        scale = friction * mass / (inertia * (rear + front))
        self._by_slip = scale * (rear * stiffness * (GRAVITY * front)
                                 - front * stiffness * (GRAVITY * rear))
        self._by_steering = scale * front * stiffness * (GRAVITY * rear)
        self._difference = on_rear * rear - on_front * front
        self._sum, self._front = on_rear + on_front, on_front

    def derivative(self, steering: float, speed: float, yaw_rate: float, slip: float
                   ) -> tuple[float, float]:
        """Return the yaw rate's and the slip angle's derivative, rad/s^2 and rad/s."""
        wheelbase = self._wheelbase
        turning = (self._scale / (speed * self._inertia * wheelbase) * self._damping * yaw_rate
                   + self._by_slip * slip + self._by_steering * steering)
        share = self._friction / (speed * wheelbase)
        slipping = ((self._friction / (speed ** 2 * wheelbase) * self._difference - 1) * yaw_rate
                    - share * self._sum * slip + share * self._front * steering)
        return turning, slipping


class EgoVehicle:
    """
    Move one passenger car: single-track model of Althoff and Wuersching, "CommonRoad: Vehicle
    Models" (2020), with tyres that saturate at the road's grip.

    The pose is that of the centre of mass, which is the middle of the body. `grip` may be
    changed between steps.
    """

    def __init__(self, settings: VehicleSettings | None = None) -> None:
        """Read the car's parameters; the car stands at the map's origin."""
        self.settings = settings or VehicleSettings()
        self._parameters = setup_vehicle_parameters(self.settings.model)
        parameters = self._parameters
        self._track = SingleTrack(parameters)
        self.length: float = parameters.l
        self.width: float = parameters.w
        self.height: float = 1.45  # m; the parameter sets have none
        self.mass: float = parameters.m
        self.yaw_inertia: float = parameters.I_z
        self.to_front_axle: float = parameters.a
        self.to_rear_axle: float = parameters.b
        self.wheelbase: float = parameters.a + parameters.b
        self.track_width: float = parameters.T_f
        self.wheel_radius: float = parameters.R_w
        self.centre_of_mass_height: float = parameters.h_cg
        self.tyre_friction: float = parameters.tire.p_dy1
        self._cornering_stiffness: float = -parameters.tire.p_ky1  # over the wheel load, 1/rad
        self.grip = self.settings.grip
        self.reset(Pose(0.0, 0.0, 0.0))

    def reset(self, pose: Pose, speed: float = 0.0) -> None:
        """Place the car at `pose`, wheels and pedals at rest, rolling at `speed` m/s."""
        self.x, self.y, self.yaw = pose.x, pose.y, wrap_angle(pose.yaw)
        self.steering_angle = 0.0
        self.throttle = 0.0
        self.brake = 0.0
        self.set_velocity(speed)

    def set_velocity(self, speed: float) -> None:
        """Set the longitudinal speed in m/s; the car neither slides nor turns then."""
        self._velocity = float(speed)
        self.yaw_rate = 0.0
        self._slip = 0.0
        self.acceleration = (0.0, 0.0)

    def stop(self, dt: float) -> None:
        """Stop the car at once; `acceleration` tells the stop as spread over `dt` s."""
        ahead, aside = -self.speed / dt, -self.lateral_speed / dt
        self.set_velocity(0.0)
        self.acceleration = (ahead, aside)

    def place(self, pose: Pose, speed: float, lateral_speed: float, yaw_rate: float, dt: float
              ) -> None:
        """
        Take over the motion of a body that moves by itself (m, rad, m/s, rad/s), `dt` s on.

        `acceleration` is then the mean one, from the velocity before.
        """
        before = self.world_velocity()
        self.x, self.y, self.yaw = pose.x, pose.y, wrap_angle(pose.yaw)
        self._velocity = math.copysign(math.hypot(speed, lateral_speed), speed)
        self._slip = math.atan(lateral_speed / speed) if speed else 0.0
        self.yaw_rate = yaw_rate
        self._note_acceleration(before, dt)

    @property
    def pose(self) -> Pose:
        """Return where the car is."""
        return Pose(self.x, self.y, self.yaw)

    @property
    def speed(self) -> float:
        """Return the longitudinal speed in m/s, negative in reverse."""
        return self._velocity * math.cos(self._slip)

    @property
    def lateral_speed(self) -> float:
        """Return the speed to the left in m/s."""
        return self._velocity * math.sin(self._slip)

    def info(self) -> VehicleInfo:
        """Return what does not change about the car."""
        limits = self.settings
        # Torque at each wheel that gives the car its deceleration.
        brake = limits.max_deceleration * self.mass * self.wheel_radius / 4.0
        hand_brake = limits.hand_brake_deceleration * self.mass * self.wheel_radius / 2.0
        wheels = tuple(
            WheelInfo(x, side * 0.5 * self.track_width, self.wheel_radius,
                      limits.max_steering_angle if front else 0.0, self.tyre_friction * self.grip,
                      brake, 0.0 if front else hand_brake)
            for front, x in ((True, self.to_front_axle), (False, -self.to_rear_axle))
            for side in (1.0, -1.0))
        return VehicleInfo(MODELS[limits.model], self.mass, self.yaw_inertia,
                           limits.drag_area / (self.width * self.height),
                           (0.0, 0.0, self.centre_of_mass_height), self.length, self.width,
                           self.height, self.wheelbase, wheels)

    def world_velocity(self) -> tuple[float, float]:
        """Return the velocity along the map's x and y axes in m/s."""
        heading = self.yaw + self._slip
        return self._velocity * math.cos(heading), self._velocity * math.sin(heading)

    def step(self, command: VehicleCommand, dt: float) -> None:
        """
        Move on by `dt` s under `command`.

        `acceleration` then holds the mean (longitudinal, lateral) acceleration in m/s^2.
        """
        if not dt > 0.0:
            raise ValueError(f'EgoVehicle.step: dt = {dt} s; it must be above 0')
        before = self.world_velocity()
        count = math.ceil(dt / LONGEST_SUBSTEP - 1e-9)
        for _ in range(count):
            self._substep(command, dt / count)
        self._note_acceleration(before, dt)

    def _note_acceleration(self, before: tuple[float, float], dt: float) -> None:
        after = self.world_velocity()
        east, north = (after[0] - before[0]) / dt, (after[1] - before[1]) / dt
        cosine, sine = math.cos(self.yaw), math.sin(self.yaw)
        self.acceleration = (cosine * east + sine * north, cosine * north - sine * east)

    def _substep(self, command: VehicleCommand, dt: float) -> None:
        limits = self.settings
        self.steering_angle = _towards(self.steering_angle,
                                       command.steer * limits.max_steering_angle,
                                       limits.steering_rate * dt)
        self.throttle = _towards(self.throttle, command.throttle, limits.pedal_rate * dt)
        self.brake = _towards(self.brake, command.brake, limits.pedal_rate * dt)
        acceleration = self._longitudinal(command, dt)
        share = _smoothstep((self._velocity - BLEND_FROM) / (BLEND_TO - BLEND_FROM))
        if share > 0.0:
            self._slide(acceleration, dt)
        else:
            state = [self.x, self.y, self.steering_angle, self._velocity, self.yaw]
            state = _runge_kutta(self._kinematic, state, acceleration, dt)
            self.x, self.y, _, self._velocity, self.yaw = state
        self.yaw = wrap_angle(self.yaw)
        if share < 1.0:
            slip = math.atan(math.tan(self.steering_angle) * self.to_rear_axle / self.wheelbase)
            yaw_rate = self._velocity * math.sin(slip) / self.to_rear_axle
            self._slip += (1.0 - share) * (slip - self._slip)
            self.yaw_rate += (1.0 - share) * (yaw_rate - self.yaw_rate)
        if abs(self._velocity) < 1e-9:
            self._velocity = 0.0

    def _longitudinal(self, command: VehicleCommand, dt: float) -> float:
        """Return the acceleration in m/s^2 that holds for `dt` s; brakes never reverse the car."""
        limits, speed = self.settings, self._velocity
        most = self.tyre_friction * self.grip * GRAVITY
        drive = self.throttle * min(limits.max_acceleration, 0.6 * most,
                                    limits.max_power * 1e3 / (self.mass * max(abs(speed), 1.0)))
        if command.reverse:
            drive *= -min(max(limits.max_reverse_speed + speed, 0.0), 1.0)
        brake = self.brake * limits.max_deceleration
        brake += limits.hand_brake_deceleration * command.hand_brake
        against = (min(brake, most) + limits.rolling_resistance * GRAVITY
                   + 0.5 * AIR_DENSITY * limits.drag_area * speed * speed / self.mass
                   + limits.engine_brake * (1.0 - self.throttle) * min(abs(speed) / 2.0, 1.0))
        if speed == 0.0:
            return math.copysign(max(abs(drive) - against, 0.0), drive)
        acceleration = drive - math.copysign(against, speed)
        if (speed + acceleration * dt) * speed < 0.0:
            return -speed / dt
        return acceleration

    def _slide(self, acceleration: float, dt: float) -> None:
        """Move on by the single-track model and the classical fourth-order method."""
        # Written out: most of the simulated vehicle's time is spent here.
        speed, yaw, yaw_rate, slip = self._velocity, self.yaw, self.yaw_rate, self._slip
        friction = self.tyre_friction * self.grip
        used = min(abs(acceleration) / (friction * GRAVITY), 0.95)
        largest = friction * math.sqrt(1.0 - used * used) / self._cornering_stiffness
        half, sixth = 0.5 * dt, dt / 6.0
        x1, y1, v1, w1, t1, s1 = self._single_track(
            speed, yaw, yaw_rate, slip, acceleration, largest)
        x2, y2, v2, w2, t2, s2 = self._single_track(
            speed + half * v1, yaw + half * w1, yaw_rate + half * t1, slip + half * s1,
            acceleration, largest)
        x3, y3, v3, w3, t3, s3 = self._single_track(
            speed + half * v2, yaw + half * w2, yaw_rate + half * t2, slip + half * s2,
            acceleration, largest)
        x4, y4, v4, w4, t4, s4 = self._single_track(
            speed + dt * v3, yaw + dt * w3, yaw_rate + dt * t3, slip + dt * s3,
            acceleration, largest)
        self.x += sixth * (x1 + 2.0 * x2 + 2.0 * x3 + x4)
        self.y += sixth * (y1 + 2.0 * y2 + 2.0 * y3 + y4)
        self._velocity += sixth * (v1 + 2.0 * v2 + 2.0 * v3 + v4)
        self.yaw += sixth * (w1 + 2.0 * w2 + 2.0 * w3 + w4)
        self.yaw_rate += sixth * (t1 + 2.0 * t2 + 2.0 * t3 + t4)
        self._slip += sixth * (s1 + 2.0 * s2 + 2.0 * s3 + s4)

    def _single_track(self, speed: float, yaw: float, yaw_rate: float, slip: float,
                      acceleration: float, largest: float
                      ) -> tuple[float, float, float, float, float, float]:
        """
        Return the derivative by `SingleTrack`, whose tyres are linear, with real tyres.

        It is that of x, y and of the first four arguments; `largest` is the rear tyres' slip
        angle in rad at which a linear force would reach the grip.

        The slip angles that it sees are cut so that its forces end at the grip left beside the
        longitudinal force. As in any car with stability control, braking does not unload the rear
        axle into a spin: wheel loads stay those at rest, and the front axle gives way first.
        """
        steering = self.steering_angle
        turn_front = self.to_front_axle * yaw_rate / speed
        turn_rear = self.to_rear_axle * yaw_rate / speed
        largest_front = FRONT_GRIP * largest
        front = largest_front * math.tanh((steering - slip - turn_front) / largest_front)
        rear = largest * math.tanh((turn_rear - slip) / largest)
        slip_seen = turn_rear - rear
        steering_seen = front + slip_seen + turn_front
        turning, slipping = self._track.derivative(steering_seen, speed, yaw_rate, slip_seen)
        # The model keeps the speed of a sliding car; its sideways forces do slow it down.
        sliding = (front * self.to_rear_axle * math.sin(steering - slip)
                   - rear * self.to_front_axle * math.sin(slip)) / self.wheelbase
        return (speed * math.cos(yaw + slip), speed * math.sin(yaw + slip),
                acceleration - self._cornering_stiffness * GRAVITY * sliding, yaw_rate, turning,
                slipping)

    def _kinematic(self, state: list[float], acceleration: float) -> list[float]:
        derivative: list[float] = vehicle_dynamics_ks_cog(state, [0.0, acceleration],
                                                          self._parameters)
        return derivative


def _runge_kutta(derivative: Callable[[list[float], float], list[float]], state: list[float],
                 acceleration: float, dt: float) -> list[float]:
    """Return the state `dt` s later by the classical fourth-order method."""
    first = derivative(state, acceleration)
    second = derivative(_along(state, first, 0.5 * dt), acceleration)
    third = derivative(_along(state, second, 0.5 * dt), acceleration)
    fourth = derivative(_along(state, third, dt), acceleration)
    return [x + dt / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
            for x, k1, k2, k3, k4 in zip(state, first, second, third, fourth, strict=True)]


def _along(state: list[float], derivative: list[float], dt: float) -> list[float]:
    return [x + dt * k for x, k in zip(state, derivative, strict=True)]


def _towards(value: float, target: float, largest: float) -> float:
    return value + min(max(target - value, -largest), largest)


def _smoothstep(share: float) -> float:
    share = min(max(share, 0.0), 1.0)
    return share * share * (3.0 - 2.0 * share)
