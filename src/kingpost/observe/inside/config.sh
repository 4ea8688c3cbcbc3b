# Print a gitlab-runner config.toml without what is secret: only the keys that are named ($2, joined by |), and
# of `environment` the names only. $1 is the file.
if [ ! -e "$1" ]; then echo 'it is not there' >&2; exit 3; fi
awk -v keys="^[ \t]*($2)[ \t]*=" '
  function names(text,   out) {
    out = ""
    while (match(text, /"[A-Za-z_][A-Za-z0-9_]*=/)) {
      out = out (out == "" ? "" : ", ") substr(text, RSTART, RLENGTH - 1) "\""
      text = substr(text, RSTART + RLENGTH)
      sub(/^([^"\\]|\\.)*"/, "", text)
    }
    print "environment = [" out "]"
  }
  held != "" { held = held $0; if (/\][ \t]*$/) { names(held); held = "" }; next }
  more { print; if (/\]/) more = 0; next }
  /^[ \t]*\[/ { print; next }
  /^[ \t]*environment[ \t]*=/ { if (/\][ \t]*$/) names($0); else held = $0; next }
  $0 ~ keys { print; if (/=[ \t]*\[/ && !/\]/) more = 1 }
' "$1" || exit 1
if [ -r "${1%/*}/.runner_system_id" ]; then printf '# system-id %s\n' "$(cat "${1%/*}/.runner_system_id")"; fi
exit 0
