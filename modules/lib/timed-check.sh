#!/usr/bin/env bash
# timed-check.sh NAME METRICS_DIRECTORY LEDGER COMMAND...
#
# Runs COMMAND with --ledger and --prometheus, and puts its metrics, each with the label check="NAME", into
# METRICS_DIRECTORY (none if that is empty) in one step. A run that leaves no metrics, because it was killed or could
# not start, leaves its exit code and the time all the same: otherwise the last good run would be what one sees.
set -u
name=$1 metrics=$2 ledger=$3
shift 3
umask 022
mkdir -p -- "${ledger%/*}"
made=$RUNTIME_DIRECTORY/metrics
rm -f -- "$made"

publish() {
  local code=$1 next
  [ -n "$metrics" ] || return 0
  mkdir -p -- "$metrics" || return 1
  next=$(mktemp -- "$metrics/.$name.XXXXXX") || return 1
  if [ -s "$made" ]; then
    sed "s/^\\([a-z_]*\\){/\\1{check=\"$name\",/" "$made" >"$next"
  else
    cat >"$next" <<METRICS
# HELP kingpost_exit_code Exit code of the last run: 0 good, 1 something failed, 3 could not look.
# TYPE kingpost_exit_code gauge
kingpost_exit_code{check="$name"} $code
# HELP kingpost_finished_seconds When the last run ended, in seconds since 1970.
# TYPE kingpost_finished_seconds gauge
kingpost_finished_seconds{check="$name"} $(date +%s)
METRICS
  fi
  chmod 0644 -- "$next" && mv -f -- "$next" "$metrics/$name.prom"
}

ended() {
  kill -TERM "$child" 2>/dev/null
  wait "$child"
  rm -f -- "$made"
  publish 143
  exit 143
}

"$@" --ledger "$ledger" --prometheus "$made" &
child=$!
trap ended TERM INT
wait "$child"
code=$?
trap - TERM INT
if ! publish "$code"; then
  printf 'kingpost: the metrics of %s cannot be written\n  file: %s\n  fix: %s\n' "$name" "$metrics" \
    "make the folder, or set metricsDirectory to node_exporter's" >&2
  [ "$code" -ne 0 ] || code=1
fi
exit "$code"
