# Try routes with what a small container has: curl, wget, or bash's /dev/tcp. One JSON line per target.
printf '{"tool": "sh", "results": ['
comma=''

target() {
  printf '%s{"id": "%s", ' "$comma" "$1"
  comma=', '
  if command -v curl >/dev/null 2>&1; then
    with_curl "$2"
  elif command -v wget >/dev/null 2>&1; then
    with_wget "$2"
  elif command -v bash >/dev/null 2>&1; then
    with_bash "$2"
  else
    printf '"skipped": "neither python3, curl, wget nor bash is here"}'
  fi
}

with_curl() {
  code=$(curl -sS -o /dev/null -m 5 --noproxy '*' -w '%{http_code}' "$1" 2>/dev/null)
  case $? in
    0) printf '"connect": {}, "requests": {"anonymous": {"status": %s, "body": null}}}' "${code:-0}" ;;
    6) printf '"resolve": {"error": "curl: could not resolve"}}' ;;
    7) printf '"connect": {"error": "refused", "text": "curl: could not connect"}}' ;;
    28) printf '"connect": {"error": "timeout", "text": "curl: timed out"}}' ;;
    35|51|53|58|60|77|83) printf '"connect": {}, "tls": {"error": "curl: TLS failed"}}' ;;
    *) printf '"connect": {"error": "other", "text": "curl failed"}}' ;;
  esac
}

with_wget() {
  tries=''
  # GNU's wget tries twenty times unless told; busybox's does not know the option.
  if wget --version 2>/dev/null | grep -q GNU; then tries='-t 1'; fi
  # shellcheck disable=SC2086 # two words on purpose
  out=$(wget $tries -S -T 5 -O /dev/null "$1" 2>&1)
  status=$?
  code=$(printf '%s\n' "$out" | sed -n 's/.*HTTP\/[0-9.]* \([0-9][0-9][0-9]\).*/\1/p' | tail -n 1)
  if [ -n "$code" ]; then
    printf '"connect": {}, "requests": {"anonymous": {"status": %s, "body": null}}}' "$code"
  elif [ "$status" = 0 ]; then
    printf '"connect": {}, "requests": {"anonymous": {"status": 200, "body": null}}}'
  else
    case $out in
      *refused*) printf '"connect": {"error": "refused", "text": "wget: refused"}}' ;;
      *'bad address'*|*resolve*) printf '"resolve": {"error": "wget: could not resolve"}}' ;;
      *'timed out'*) printf '"connect": {"error": "timeout", "text": "wget: timed out"}}' ;;
      *) printf '"connect": {"error": "other", "text": "wget failed"}}' ;;
    esac
  fi
}

with_bash() {
  rest=${1#*://}
  place=${rest%%/*}
  host=${place%%:*}
  port=${place##*:}
  if [ "$port" = "$place" ]; then case $1 in https:*) port=443 ;; *) port=80 ;; esac; fi
  if bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$host" "$port" 2>/dev/null; then
    printf '"connect": {}, "requests": {}}'
  else
    printf '"connect": {"error": "other", "text": "bash: /dev/tcp could not connect"}}'
  fi
}

finish() { printf ']}\n'; }
