#!/bin/sh
# store-fix ARGUMENT...             run the store-fix beside this file with the first Python that works
# store-fix --at-boot ARGUMENT...   run store-scan.py with it
#
# Needs sh and any Python since 3.9 with sqlite3. The one that the host's configuration names comes first (file
# `python`); where the store is damaged it may be the one that is.
set -u
here=${0%/*}
program=$here/store-fix.pyz
if [ "${1-}" = --at-boot ]; then
  shift
  program=$here/store-scan.py
  set -- --program "$here/store-fix.pyz" "$@"
fi
named=
[ ! -r "$here/python" ] || read -r named <"$here/python"
for python in "$named" python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 \
  /run/current-system/sw/bin/python3 /run/booted-system/sw/bin/python3 /usr/bin/python3 \
  /nix/store/*-python3-3.*/bin/python3; do
  [ -n "$python" ] || continue
  if "$python" -I -S -c 'import sys, sqlite3, json, hashlib; sys.exit(sys.version_info < (3, 9))' >/dev/null 2>&1; then
    exec "$python" -I -S "$program" "$@"
  fi
done
echo 'store-fix: there is no Python >= 3.9 with sqlite3 on this machine' >&2
echo '  why: the store was not looked at' >&2
echo '  fix: repair it from a rescue system that mounts the disk: store-fix repair --root /mnt' >&2
while [ $# -gt 1 ]; do
  # Without Python this is all that can be said.
  [ "$1" != --textfile ] || { [ -d "${2%/*}" ] || mkdir -p "${2%/*}"; printf '%s\n' \
    '# HELP kingpost_exit_code Exit code of the last run: 0 good, 1 something failed, 3 could not look.' \
    '# TYPE kingpost_exit_code gauge' 'kingpost_exit_code{command="store-fix scan"} 3' >"$2"; }
  shift
done
exit 3
