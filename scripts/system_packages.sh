#!/bin/sh
# System packages that pip cannot bring: MediaPipe's two graphics libraries, and a C++ compiler with
# Python's headers and venv for the ROS messages. Installs what is missing as root, else says how.
set -eu

missing=""
have_library() { ldconfig -p 2>/dev/null | grep -q "$1" || /sbin/ldconfig -p | grep -q "$1"; }
have_library libEGL.so.1 || missing="$missing libegl1"
have_library libGLESv2.so.2 || missing="$missing libgles2"
command -v g++ >/dev/null || missing="$missing g++"
python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
python3 -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' \
    || missing="$missing python3-dev"
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ]; then as_root=""
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as_root="sudo"
else
    echo "error: system packages are missing; run: sudo apt-get install$missing" >&2
    exit 2
fi
echo "installing system packages:$missing"
$as_root apt-get update -qq
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
