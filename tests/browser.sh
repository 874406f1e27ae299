#!/bin/sh
# The chat page is tested in a real browser: Debian's Chromium, with fonts that can show Japanese.
command -v chromium >/dev/null && exit 0
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-noto-cjk >/dev/null && exit 0
fi
echo "the chat page's tests need Chromium: install it (Debian: apt-get install chromium fonts-noto-cjk)" >&2
exit 1
