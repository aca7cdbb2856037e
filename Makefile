# Everything runs from .venv, which `make setup` builds: no root, no system package, no `source`.
SHELL := /bin/bash
VENV ?= .venv
ROS ?= jazzy
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& { command -v $$p; break; }; done)
ARGS ?=

BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
AUDIT := .venv-audit
STEP := @requirements/step $(VENV)
PINS := $(addprefix requirements/,ros-$(ROS).txt build.txt pip.txt indirect.txt run.txt dev.txt)
MESSAGES := $(wildcard $(foreach p,av_td3_msgs carla_msgs ackermann_msgs tf2_msgs,\
	$(addprefix ros2_ws/src/$(p)/,package.xml CMakeLists.txt msg/* srv/*)))

# A sourced ROS installation must not leak into the virtual environment.
unexport PYTHONPATH AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH
unexport ROS_DISTRO ROS_VERSION ROS_PYTHON_VERSION RMW_IMPLEMENTATION

.DEFAULT_GOAL := help
.PHONY: help setup train drive test test-kilted lint bench sbom audit clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMPS)/project  ## Build .venv: ROS 2, torch, the messages, this project

train: setup  ## Train in the embedded simulator and report; options by ARGS="--steps 2000 --seed 7"
	@$(BIN)/av-td3 train $(ARGS)

drive: setup  ## Watch the policy in the box drive roads it has never seen, in a window or as a film
	@$(BIN)/av-td3 drive $(ARGS)

test: setup lint  ## Lint, then run every test; options by ARGS="-k replay"
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-kilted:  ## The same on ROS 2 Kilted, in an environment of its own
	@$(MAKE) --no-print-directory test VENV=.venv-kilted ROS=kilted

lint: setup  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench: setup $(STAMPS)/bench  ## Run every benchmark (hours; one by ARGS="camera"); results in benchmarks/results
	@$(BIN)/python -m benchmarks $(ARGS)

sbom: setup $(STAMPS)/audit  ## Write sbom.json, all that .venv holds, as CycloneDX
	@$(AUDIT)/bin/cyclonedx-py environment $(BIN)/python --output-format JSON \
		--output-file sbom.json $(ARGS)
	@echo sbom.json

audit: setup $(STAMPS)/audit  ## Ask PyPI what is known against the versions that .venv holds
	@$(AUDIT)/bin/pip-audit --path $$($(BIN)/python -c \
		'import sysconfig; print(sysconfig.get_path("purelib"))') --progress-spinner off $(ARGS)

clean:  ## Remove what setup built (runs stay)
	rm -rf $(VENV) .venv-kilted $(AUDIT) *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(STAMPS)/venv:
	@requirements/check-machine '$(PYTHON)'
	$(STEP) 'creating $(VENV)' '$(PYTHON)' -m venv --clear $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/requirements: $(STAMPS)/venv $(PINS) requirements/torch.txt
	$(STEP) 'installing ROS 2 and the rest from PyPI' $(BIN)/python -m pip install \
		--disable-pip-version-check --retries 2 --no-deps --require-hashes \
		$(addprefix -r ,$(PINS))
	$(STEP) 'installing torch' $(BIN)/python requirements/install_torch.py
	$(STEP) 'checking that nothing is missing' $(BIN)/python -m pip check
	@touch $@

$(STAMPS)/underlay: $(STAMPS)/requirements requirements/relocate.py
	$(STEP) 'making $(VENV) an ament underlay' $(BIN)/python requirements/relocate.py
	@touch $@

$(STAMPS)/messages: $(STAMPS)/underlay $(MESSAGES)
	$(STEP) 'building the messages with colcon' env 'PATH=$(abspath $(BIN)):$(PATH)' \
		VIRTUAL_ENV=$(abspath $(VENV)) AMENT_PREFIX_PATH=$(abspath $(VENV)) \
		CMAKE_PREFIX_PATH=$(abspath $(VENV)) \
		colcon --log-base $(VENV)/log build --base-paths ros2_ws/src --merge-install \
		--packages-select av_td3_msgs carla_msgs ackermann_msgs tf2_msgs \
		--build-base $(VENV)/build --install-base $(VENV) --cmake-args -DBUILD_TESTING=OFF
	@touch $@

$(STAMPS)/bench: $(STAMPS)/requirements requirements/bench.txt
	$(STEP) 'installing what the benchmarks compare with' $(BIN)/python -m pip install \
		--disable-pip-version-check --retries 2 --no-deps \
		--require-hashes -r requirements/bench.txt
	@touch $@

$(STAMPS)/audit: $(STAMPS)/venv requirements/audit.txt
	$(STEP) 'creating $(AUDIT)' '$(PYTHON)' -m venv --clear $(AUDIT)
	$(STEP) 'installing what looks at the environment' $(AUDIT)/bin/python -m pip install \
		--disable-pip-version-check --retries 2 --no-deps --require-hashes \
		-r requirements/audit.txt
	@touch $@

$(STAMPS)/project: $(STAMPS)/messages pyproject.toml
	$(STEP) 'installing av_td3_ros' $(BIN)/python -m pip install \
		--disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@
