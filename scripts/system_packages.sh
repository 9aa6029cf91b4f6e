#!/bin/sh
# System packages that pip cannot bring: MediaPipe's two graphics libraries, and a C++ compiler with
# Python's headers and venv for the ROS messages. Installs what is missing as root, else says how.
# With "browser": Chromium for the tests of the page, where a package of it exists; without it they skip.
set -eu

as_root=""
can_install() {
    [ "$(id -u)" = 0 ] && return
    command -v sudo >/dev/null && sudo -n true 2>/dev/null && as_root="sudo"
}
install() {
    echo "installing system packages: $*"
    $as_root apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

if [ "${1:-}" = browser ]; then
    command -v chromium >/dev/null && exit 0
    # Ubuntu's package is a stub that asks for a snap.
    if grep -qx 'ID=debian' /etc/os-release 2>/dev/null && can_install && install chromium; then exit 0; fi
    echo "note: no Chromium: the tests of the page in a browser skip (Debian: apt-get install chromium)"
    exit 0
fi

missing=""
have_library() { ldconfig -p 2>/dev/null | grep -q "$1" || /sbin/ldconfig -p | grep -q "$1"; }
have_library libEGL.so.1 || missing="$missing libegl1"
have_library libGLESv2.so.2 || missing="$missing libgles2"
command -v g++ >/dev/null || missing="$missing g++"
python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
python3 -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' \
    || missing="$missing python3-dev"
[ -z "$missing" ] && exit 0

if ! can_install; then
    echo "error: system packages are missing; run: sudo apt-get install$missing" >&2
    exit 2
fi
install $missing
