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

# Why TLS failed, by what curl or wget (OpenSSL, GnuTLS) says of it.
tls_kind() {
  case $1 in
    *expired*|*'not yet valid'*|*'not yet activated'*) echo expired ;;
    *'subject name'*|*'does not match'*|*"doesn't match"*|*'host name'*) echo name ;;
    *self*signed*|*'local issuer'*|*'unknown issuer'*|*"isn't trusted"*|*'unknown authority'*|*'not trusted'*)
      echo untrusted ;;
    *'wrong version'*|*'unexpected TLS packet'*|*'packet length'*|*'record layer'*) echo plain ;;
  esac
}

# A program's own words, fit for a JSON string; without tr, none.
said() {
  if ! command -v tr >/dev/null 2>&1; then
    echo "$2"
  else
    printf '%s' "$1" | tr '\042\134' "'/" | tr -s '[:cntrl:]' ' '
  fi
}

no_tls() {
  why=$(said "$1" 'the handshake failed')
  printf '"connect": {}, "tls": {"error": "%s", "kind": "%s"}}' "$why" "$(tls_kind "$1")"
}

# What a body gives away of who answers; the body itself is not needed.
marks() {
  case $1 in
    *StoreDir:*) echo StoreDir: ;;
    *'"error"'*Host*) printf '%s' '\"error\" Host' ;;
    *'"error"'*) printf '%s' '\"error\"' ;;
    *HTTPS*) echo HTTPS ;;
    *'<'*) echo '<' ;;
    *) echo other ;;
  esac
}

with_curl() {
  out=$(curl -sS -m 5 --noproxy '*' -w '%{http_code}' "$1" 2>&1)
  status=$?
  why=${out%???}
  code=${out#"$why"}
  case $status in
    0)
      printf '"connect": {}, "requests": {"anonymous": {"status": %s, "body": "%s"}}}' "${code:-0}" "$(marks "$why")" ;;
    6) printf '"resolve": {"error": "curl: could not resolve"}}' ;;
    7)
      case $why in
        *nreachable*|*'o route'*) printf '"connect": {"error": "unreachable", "text": "curl: unreachable"}}' ;;
        *) printf '"connect": {"error": "refused", "text": "curl: could not connect"}}' ;;
      esac ;;
    28) printf '"connect": {"error": "timeout", "text": "curl: timed out"}}' ;;
    35|51|53|58|60|77|83) no_tls "$why" ;;
    1|8|52|55|56)
      if [ "${1#http:}" != "$1" ] && curl -sk -o /dev/null -m 5 --noproxy '*' "https:${1#http:}" 2>/dev/null; then
        printf '"connect": {}, "tls": {"error": "plain HTTP was asked of a port that speaks TLS", "kind": "secure"}}'
      else
        why=$(said "$why" 'curl failed')
        printf '"connect": {}, "requests": {"anonymous": {"error": "other", "text": "%s"}}}' "$why"
      fi ;;
    *) printf '"connect": {"error": "other", "text": "%s"}}' "$(said "$why" 'curl failed')" ;;
  esac
}

with_wget() {
  tries=''
  # GNU's wget tries twenty times unless told; busybox's does not know the option.
  if wget --version 2>/dev/null | grep -q GNU; then tries='-t 1'; fi
  # shellcheck disable=SC2086 # two words on purpose
  out=$(wget $tries -S -T 5 -O - "$1" 2>&1)
  status=$?
  code=$(printf '%s\n' "$out" | sed -n 's/.*HTTP\/[0-9.]* \([0-9][0-9][0-9]\).*/\1/p' | tail -n 1)
  if [ "$status" = 0 ]; then
    printf '"connect": {}, "requests": {"anonymous": {"status": %s, "body": "%s"}}}' "${code:-200}" "$(marks "$out")"
  elif [ -n "$code" ]; then
    # Of a refusal wget shows no body.
    printf '"connect": {}, "requests": {"anonymous": {"status": %s, "body": null}}}' "$code"
  else
    case $out in
      *refused*) printf '"connect": {"error": "refused", "text": "wget: refused"}}' ;;
      *'bad address'*|*resolve*) printf '"resolve": {"error": "wget: could not resolve"}}' ;;
      *'timed out'*) printf '"connect": {"error": "timeout", "text": "wget: timed out"}}' ;;
      *nreachable*|*'No route'*) printf '"connect": {"error": "unreachable", "text": "wget: unreachable"}}' ;;
      *ertificate*|*SSL*|*TLS*) no_tls "$out" ;;
      *) printf '"connect": {}, "requests": {"anonymous": {"error": "other", "text": "wget failed"}}}' ;;
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
