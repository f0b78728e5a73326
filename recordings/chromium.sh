#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Headless Chromium with several tabs; its zygote forks a renderer for each site, as Android's zygote forks
# applications.  What happens in the tabs is in chromium_tabs.py.
# Usage: chromium.sh [TABS]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tabs=${1:-6}

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
# The profile, caches and configuration of the user are neither read nor written.
export HOME="$dir" XDG_CONFIG_HOME="$dir" XDG_CACHE_HOME="$dir" TMPDIR="$dir"

# Chromium reads DevTools commands from descriptor 3, answers on 4, and leaves when 3 is closed.  Its sandbox is
# refused to root; the zygote is not part of the sandbox and stays.  Never add --no-zygote here.
mkfifo commands answers
chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
    --disable-component-update --disable-sync --user-data-dir="$dir/profile" --remote-debugging-pipe \
    about:blank 3<commands 4>answers 2>&1 | cat >log &
timeout 60 /usr/bin/python3 "$here/chromium_tabs.py" commands answers "$tabs"
# The renderers outlive the browser for a moment.  All have inherited the pipe to cat, and a process closes its
# files after it has torn down its memory: when cat ends, so has all that is to be recorded.
wait
