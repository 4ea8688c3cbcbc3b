#!/usr/bin/env bash
# atticd-secret.sh FILE [ALGORITHM]
#
# Checks the secret that atticd signs tokens with; atticd itself panics without a word about the file.
#
#   FILE       what the secret is in, for the complaint
#   ALGORITHM  RS256 or HS256: write the environment from the credential `secret` to $RUNTIME_DIRECTORY/secret.env.
#              Without it, systemd has put what is in FILE into the environment already
#
# No part of the secret is ever printed or passed as an argument.
set -uo pipefail
export LC_ALL=C
file=$1 algorithm=${2-}

make='make it with: openssl genrsa -traditional 4096 | base64 -w0'

refuse() {
  printf 'kingpost: %s\n  file: %s\n  fix: %s\n' "$1" "$file" "$2" >&2
  exit 1
}

check() {
  local name=$1 value=$2 text
  case $value in
    *$'\r'*) refuse "$name has carriage returns: it was written with Windows line ends" "store it again; $make" ;;
    *[!A-Za-z0-9+/=]*) refuse "$name is not base64 on one line" "$make" ;;
  esac
  if ! printf %s "$value" | base64 -d >/dev/null 2>&1; then
    refuse "$name is cut short: it is not base64" "$make"
  fi
  text=$(printf %s "$value" | base64 -d | tr -d '\0')
  case $name in
    *RS256*)
      case $text in
        -----BEGIN*) ;;
        *) refuse "$name is no key in PEM format" "$make" ;;
      esac
      ;;
  esac
}

if [ -n "$algorithm" ]; then
  target=$RUNTIME_DIRECTORY/secret.env
  secret=$CREDENTIALS_DIRECTORY/secret
  name=ATTIC_SERVER_TOKEN_${algorithm}_SECRET_BASE64
  # The x keeps the newlines at the end, which $(…) would drop, all of them.
  value=$(cat -- "$secret" && printf x) || refuse 'the secret cannot be read' 'check that it is declared for this host'
  value=${value%x}
  value=${value%$'\n'}
  [ -n "$value" ] || refuse 'the secret is empty' "$make"
  case $value in
    ATTIC_SERVER_*=*) refuse 'the secret holds NAME=value, and secretFile takes the bare secret' 'declare it as environmentFile' ;;
  esac
  check "$name" "$value"
  umask 077
  printf '%s=%s\n' "$name" "$value" >"$target.new" && mv -f -- "$target.new" "$target"
  exit
fi

found=
for name in ATTIC_SERVER_TOKEN_RS256_PUBKEY_BASE64 ATTIC_SERVER_TOKEN_RS256_SECRET_BASE64 ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64; do
  value=${!name-}
  if [ -n "$value" ]; then
    # The first of them counts, and a public key makes a server that can only verify.
    [ -z "$found" ] || refuse "both $found and $name are set, and atticd takes the first" 'keep the one that signs your tokens'
    found=$name
    check "$name" "$value"
  fi
done
if [ -z "$found" ]; then
  refuse 'there is no secret that signs tokens' "write a line ATTIC_SERVER_TOKEN_RS256_SECRET_BASE64=…; $make"
fi
