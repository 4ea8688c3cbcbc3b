# POSIX shell. A token is never printed, traced, or passed as an argument; it lives in a private folder that
# is removed when the job ends.

kingpost_begin() { # [FORKS] [VARIABLE...]: prepare; FORKS is push or no-push, VARIABLEs hold tokens
  KINGPOST_FORKS=${1:-no-push}
  [ $# -eq 0 ] || shift
  KINGPOST_DIR=${TMPDIR:-/tmp}/kingpost-job-${CI_JOB_ID:-$$}
  rm -rf "$KINGPOST_DIR"
  mkdir -m 700 "$KINGPOST_DIR" || return 1
  trap 'rm -rf "$KINGPOST_DIR"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  KINGPOST_REPORT=${CI_PROJECT_DIR:-.}/kingpost-report
  mkdir -p "$KINGPOST_REPORT"
  : >"$KINGPOST_REPORT/push.txt"
  KINGPOST_BUILDS=0
  KINGPOST_WARNINGS=0
  if kingpost_is_fork; then
    for kingpost_name in "$@"; do unset "$kingpost_name"; done
  fi
}

kingpost_is_fork() { # is this a fork's merge request, whose code is not ours?
  [ "$KINGPOST_FORKS" != push ] && [ -n "${CI_MERGE_REQUEST_SOURCE_PROJECT_ID-}" ] &&
    [ "$CI_MERGE_REQUEST_SOURCE_PROJECT_ID" != "${CI_MERGE_REQUEST_PROJECT_ID-}" ]
}

kingpost_say() { # TEXT: to the log and the report
  printf 'kingpost: %s\n' "$1" | tee -a "$KINGPOST_REPORT/push.txt" >&2
}

kingpost_untraced() { # COMMAND...: run it without `set -x`, which would print tokens
  case $- in
    *x*)
      { set +x; } 2>/dev/null
      kingpost_status=0
      "$@" || kingpost_status=$?
      set -x
      return "$kingpost_status"
      ;;
    *) "$@" ;;
  esac
}

kingpost_read_token() { # variable NAME | raw FILE | env FILE NAME: sets KINGPOST_TOKEN, inside kingpost_untraced
  KINGPOST_TOKEN=
  case $1 in
    variable)
      eval "KINGPOST_TOKEN=\${$2-}"
      case $KINGPOST_TOKEN in
        /*) KINGPOST_TOKEN=$(cat "$KINGPOST_TOKEN") || return 1 ;; # a CI variable of type file
      esac
      ;;
    raw) KINGPOST_TOKEN=$(cat "$2") || return 1 ;;
    env) KINGPOST_TOKEN=$(sed -n "s/^$3=//p" "$2") || return 1 ;;
  esac
  case $KINGPOST_TOKEN in
    '') kingpost_say "there is no token: $1 $2 is not set or empty here (protected variables reach protected branches only)" ;;
    *[!A-Za-z0-9._~+/=-]*) kingpost_say "$1 $2 holds a character that no token has, such as a blank or a line end: store it again with printf %s" ;;
    *) return 0 ;;
  esac
  KINGPOST_TOKEN=
  return 1
}

kingpost_netrc() { # MACHINE SOURCE...: let Nix read a private cache, in this job only
  if kingpost_is_fork; then return 0; fi
  kingpost_untraced kingpost_write_netrc "$@" || {
    kingpost_say "private caches on $1 are read without a token, so they will refuse"
    return 0
  }
  case ${NIX_CONFIG-} in
    *"netrc-file = $KINGPOST_DIR/netrc"*) ;;
    *)
      NIX_CONFIG="${NIX_CONFIG-}
netrc-file = $KINGPOST_DIR/netrc"
      export NIX_CONFIG
      ;;
  esac
}

kingpost_write_netrc() {
  kingpost_machine=$1
  shift
  kingpost_read_token "$@" || return 1
  (umask 077 && printf 'machine %s login kingpost password %s\n' "$kingpost_machine" "$KINGPOST_TOKEN" >>"$KINGPOST_DIR/netrc")
  KINGPOST_TOKEN=
}

kingpost_build() { # INSTALLABLE: build it, keep it from the garbage collector, count the caches that were given up
  KINGPOST_BUILDS=$((KINGPOST_BUILDS + 1))
  mkfifo "$KINGPOST_DIR/pipe"
  tee "$KINGPOST_DIR/build.log" <"$KINGPOST_DIR/pipe" >&2 &
  kingpost_tee=$!
  kingpost_status=0
  nix build --print-build-logs --out-link "$KINGPOST_DIR/result-$KINGPOST_BUILDS" -- "$1" 2>"$KINGPOST_DIR/pipe" || kingpost_status=$?
  wait "$kingpost_tee" || :
  rm -f "$KINGPOST_DIR/pipe"
  kingpost_count=$(grep -c 'disabling binary cache' "$KINGPOST_DIR/build.log") || :
  if [ "$kingpost_count" != 0 ]; then
    kingpost_say "a cache was given up $kingpost_count times while building $1: this build is no evidence that it works"
  fi
  return "$kingpost_status"
}

kingpost_push() { # POLICY CACHE COMMAND...: push everything that was built
  kingpost_policy=$1
  kingpost_cache=$2
  shift 2
  if kingpost_is_fork; then
    kingpost_say "$kingpost_cache: skipped, nothing is pushed for a fork"
    return 0
  fi
  KINGPOST_LIMIT=
  if [ "$kingpost_policy" = best-effort ]; then
    KINGPOST_LIMIT="timeout -k 30 ${KINGPOST_BEST_EFFORT_SECONDS:-900}"
  fi
  kingpost_result=0
  kingpost_untraced "$@" || kingpost_result=$?
  if [ "$kingpost_result" = 0 ]; then
    kingpost_say "$kingpost_cache: pushed"
  elif [ "$kingpost_policy" = best-effort ]; then
    KINGPOST_WARNINGS=$((KINGPOST_WARNINGS + 1))
    kingpost_say "$kingpost_cache: push FAILED with exit code $kingpost_result; it is best-effort, so the job goes on and ends with a warning"
  else
    kingpost_say "$kingpost_cache: push FAILED with exit code $kingpost_result; it is required, so the job fails"
    return 1
  fi
}

kingpost_outputs() { # set KINGPOST_OUTPUTS to what was built, and write its closure into the report
  KINGPOST_OUTPUTS=
  for kingpost_link in "$KINGPOST_DIR"/result-*; do
    if [ -L "$kingpost_link" ]; then
      KINGPOST_OUTPUTS="$KINGPOST_OUTPUTS $(readlink "$kingpost_link")"
    fi
  done
  [ -n "$KINGPOST_OUTPUTS" ] || {
    kingpost_say "nothing was built, so there is nothing to push"
    return 1
  }
  # shellcheck disable=SC2086 # store paths have no blanks
  nix-store --query --requisites $KINGPOST_OUTPUTS >"$KINGPOST_REPORT/closure.txt"
}

kingpost_attic() { # ENDPOINT CACHE JOBS SOURCE...: attic pushes the closure of each path itself
  kingpost_outputs || return 1
  kingpost_endpoint=$1
  kingpost_name=$2
  kingpost_jobs=$3
  shift 3
  if [ "$1" = login ]; then # SERVER: the user's own `attic login`
    # shellcheck disable=SC2086 # likewise; the limit is several words
    $KINGPOST_LIMIT attic push --jobs "$kingpost_jobs" "$2:$kingpost_name" $KINGPOST_OUTPUTS
    return
  fi
  kingpost_read_token "$@" || return 1
  rm -rf "$KINGPOST_DIR/config"
  mkdir -p "$KINGPOST_DIR/config/attic" || return 1
  (umask 077 && printf '[servers.kingpost]\nendpoint = "%s"\ntoken = "%s"\n' "$kingpost_endpoint" "$KINGPOST_TOKEN" \
    >"$KINGPOST_DIR/config/attic/config.toml") || return 1
  KINGPOST_TOKEN=
  kingpost_code=0
  # shellcheck disable=SC2086 # likewise
  XDG_CONFIG_HOME=$KINGPOST_DIR/config $KINGPOST_LIMIT attic push --jobs "$kingpost_jobs" "kingpost:$kingpost_name" $KINGPOST_OUTPUTS || kingpost_code=$?
  rm -rf "$KINGPOST_DIR/config"
  return "$kingpost_code"
}

kingpost_cachix() { # CACHE JOBS SOURCE...: the whole closure, from stdin
  kingpost_outputs || return 1
  kingpost_name=$1
  kingpost_jobs=$2
  shift 2
  if [ "$1" = login ]; then
    $KINGPOST_LIMIT cachix push --jobs "$kingpost_jobs" "$kingpost_name" <"$KINGPOST_REPORT/closure.txt"
    return
  fi
  kingpost_read_token "$@" || return 1
  kingpost_code=0
  (
    CACHIX_AUTH_TOKEN=$KINGPOST_TOKEN
    export CACHIX_AUTH_TOKEN
    exec $KINGPOST_LIMIT cachix push --jobs "$kingpost_jobs" "$kingpost_name" <"$KINGPOST_REPORT/closure.txt"
  ) || kingpost_code=$?
  KINGPOST_TOKEN=
  return "$kingpost_code"
}

kingpost_token_file() { # SOURCE...: write a token to $KINGPOST_DIR/token, for a program that reads one from a file
  kingpost_untraced kingpost_write_token "$@"
}

kingpost_write_token() {
  kingpost_read_token "$@" || return 1
  (umask 077 && printf '%s' "$KINGPOST_TOKEN" >"$KINGPOST_DIR/token")
  KINGPOST_TOKEN=
}

kingpost_end() { # exit code 75 is GitLab's orange: `allow_failure` lets the pipeline go on, and shows it
  if [ "$KINGPOST_WARNINGS" != 0 ]; then
    exit 75
  fi
}
