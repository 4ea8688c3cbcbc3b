#!/usr/bin/env bash
# fill-secrets.sh TEMPLATE TARGET MODE LIKE [PLACEHOLDER FORMAT FILE]...
#
# Writes TARGET from TEMPLATE with each PLACEHOLDER replaced by the token in FILE, in one step (a reader sees
# the old file or the new one), with MODE and with the owner of LIKE.
#
#   FORMAT raw       the file holds the bare token; one newline at its end is dropped
#   FORMAT env:NAME  the file holds lines NAME=value
#
# No token is ever printed or passed as an argument. What is no token (carriage returns, blanks, several lines,
# NAME=value where a bare token belongs) is refused with the file's name and what to do.
set -euo pipefail
export LC_ALL=C

refuse() {
  printf 'kingpost: %s\n  file: %s\n  fix: %s\n' "$1" "$2" "$3" >&2
  exit 1
}

read_raw() {
  local file=$1
  # The x keeps the newlines at the end, which $(…) would drop, all of them.
  value=$(cat -- "$file" && printf x)
  value=${value%x}
  value=${value%$'\n'}
}

read_env() {
  local file=$1 name=$2 line found=
  value=
  while IFS= read -r line || [[ -n $line ]]; do
    line=${line#export }
    if [[ $line == "$name="* ]]; then
      found=yes
      value=${line#*=}
    fi
  done <"$file"
  if [[ -z $found ]]; then
    refuse "there is no line $name=…" "$file" "write $name=TOKEN on a line of its own"
  fi
  if [[ $value =~ ^\"(.*)\"$ || $value =~ ^\'(.*)\'$ ]]; then
    value=${BASH_REMATCH[1]}
  fi
}

check_token() {
  local file=$1 format=$2
  if [[ -z $value ]]; then
    refuse 'the secret is empty' "$file" 'store the token again'
  elif [[ $value == *$'\r'* ]]; then
    refuse 'the secret has carriage returns: it was written with Windows line ends' "$file" \
      "store it again without: printf %s TOKEN"
  elif [[ $format == raw && $value =~ ^[A-Za-z_][A-Za-z0-9_]*=. ]]; then
    refuse 'the secret holds NAME=value, and a bare token was declared' "$file" \
      'store the bare token, or declare format = "env" and its variables in the topology'
  elif [[ $value == *$'\n'* ]]; then
    refuse 'the secret has more than one line' "$file" "store the token alone: printf %s TOKEN"
  elif [[ ! $value =~ ^[A-Za-z0-9._~+/=-]+$ ]]; then
    refuse 'the secret has a character that no token has, such as a blank or a quote' "$file" \
      "store the token alone: printf %s TOKEN"
  fi
}

template=$1 target=$2 mode=$3 like=$4
shift 4
content=$(cat -- "$template" && printf x)
content=${content%x}
while (($#)); do
  placeholder=$1 format=$2 file=$3
  shift 3
  if [[ ! -r $file ]]; then
    refuse 'the secret is not there, or may not be read' "$file" \
      'check that it is declared for this host and that its provider (agenix, sops-nix) decrypted it'
  fi
  case $format in
    raw) read_raw "$file" ;;
    env:*) read_env "$file" "${format#env:}" ;;
    *) refuse "unknown format $format" "$file" 'render again' ;;
  esac
  check_token "$file" "$format"
  if [[ $content != *"$placeholder"* ]]; then
    refuse "the template has no $placeholder" "$template" 'render again'
  fi
  content=${content//"$placeholder"/"$value"}
done
unset value
if [[ $content =~ @TOKEN:[A-Za-z0-9._-]+@ ]]; then
  refuse "no secret is declared for ${BASH_REMATCH[0]}" "$template" 'declare the token of that runner in the topology'
fi

directory=${target%/*}
if [[ ! -d $directory ]]; then
  mkdir -p -- "$directory"
  chown --reference="$like" -- "$directory"
  chmod 0700 -- "$directory"
fi
umask 077
next=$(mktemp -- "$directory/.fill.XXXXXX")
trap 'rm -f -- "$next"' EXIT
printf '%s' "$content" >"$next"
chmod -- "$mode" "$next"
chown --reference="$like" -- "$next"
mv -f -- "$next" "$target"
