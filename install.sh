#!/bin/sh
# Installs the holdfast executable: picks the architecture, verifies the checksum, moves it into place.
#
#   HOLDFAST_ARTIFACT_DIR=/media/usb sh install.sh         from a folder with holdfast-linux-ARCH and its .sha256
#   HOLDFAST_BASE_URL=https://HOST/PATH sh install.sh      from a server with the same two files
#   sh install.sh --uninstall                              removes the executable; what it kept stays
#
# A second run with the same file changes nothing. A file that does not verify, or does not call itself
# holdfast (a stripped one would not), never replaces what is there.
set -eu

HOLDFAST_BASE_URL=${HOLDFAST_BASE_URL:-}                # folder of a server; there is no public release yet, so no default
HOLDFAST_ARTIFACT_DIR=${HOLDFAST_ARTIFACT_DIR:-}        # local folder, for machines without a network; wins over the URL
HOLDFAST_VERSION=${HOLDFAST_VERSION:-}                  # the only version to accept, such as 0.1.0; empty accepts any
HOLDFAST_BIN_DIR=${HOLDFAST_BIN_DIR:-/usr/local/bin}    # where the executable goes
DRY_RUN=${DRY_RUN:-}                                    # not empty: say what would be done

say() { printf '%s\n' "$*"; }
fail() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }

architecture() {
  case $(uname -m) in
    x86_64 | amd64) echo x64 ;;
    aarch64 | arm64) echo arm64 ;;
    *) fail "no executable for $(uname -m): there are x86_64 and aarch64" ;;
  esac
}

# A 64-bit kernel may carry a 32-bit userland, and musl is not glibc: the loader tells.
check_loader() {
  case $1 in x64) loader=/lib64/ld-linux-x86-64.so.2 ;; *) loader=/lib/ld-linux-aarch64.so.1 ;; esac
  [ -e "$loader" ] || fail "$loader is missing: a 64-bit userland with glibc 2.17 or later is needed"
}

# get NAME FILE
get() {
  if [ -n "$HOLDFAST_ARTIFACT_DIR" ]; then
    [ -r "$HOLDFAST_ARTIFACT_DIR/$1" ] || fail "\"$HOLDFAST_ARTIFACT_DIR/$1\" cannot be read"
    cat "$HOLDFAST_ARTIFACT_DIR/$1" > "$2"
  elif command -v curl > /dev/null 2>&1; then
    curl -fsSL --retry 3 -o "$2" "$HOLDFAST_BASE_URL/$1" || fail "cannot download $HOLDFAST_BASE_URL/$1"
  elif command -v wget > /dev/null 2>&1; then
    wget -q -O "$2" "$HOLDFAST_BASE_URL/$1" || fail "cannot download $HOLDFAST_BASE_URL/$1"
  else
    fail "neither curl nor wget is here: copy the two files over and set HOLDFAST_ARTIFACT_DIR"
  fi
}

check_version() {
  [ -n "$HOLDFAST_VERSION" ] || return 0
  case $1 in "holdfast $HOLDFAST_VERSION "*) ;; *) fail "offered is $1, wanted is $HOLDFAST_VERSION: nothing was changed" ;; esac
}

digest() { sha256sum "$1" | cut -d ' ' -f 1; }

uninstall() {
  target=$HOLDFAST_BIN_DIR/holdfast
  if [ ! -e "$target" ]; then say "nothing to remove: $target is not there"; return; fi
  [ -n "$DRY_RUN" ] && { say "would remove $target"; return; }
  rm -f "$target"
  say "removed $target; what it kept is still in /var/lib/holdfast"
}

main() {
  case ${1:-} in
    --uninstall) uninstall; return ;;
    '') ;;
    *) fail "unknown argument \"$1\"; there is --uninstall" ;;
  esac
  arch=$(architecture)
  check_loader "$arch"
  name=holdfast-linux-$arch
  target=$HOLDFAST_BIN_DIR/holdfast
  if [ -z "$HOLDFAST_ARTIFACT_DIR$HOLDFAST_BASE_URL" ]; then
    fail "say where the files are: HOLDFAST_ARTIFACT_DIR=DIR (as made by 'bun run build' in dist) or HOLDFAST_BASE_URL=URL"
  fi
  if [ -n "$DRY_RUN" ]; then
    say "would install $name from ${HOLDFAST_ARTIFACT_DIR:-$HOLDFAST_BASE_URL} as $target"
    return
  fi
  [ ! -d "$target" ] || fail "$target is a folder"
  mkdir -p "$HOLDFAST_BIN_DIR" || fail "cannot make $HOLDFAST_BIN_DIR; run as root or set HOLDFAST_BIN_DIR"
  # In the target's own folder: the last step must be a rename within one file system.
  work=$(mktemp -d "$HOLDFAST_BIN_DIR/.holdfast.XXXXXX") || fail "cannot write into $HOLDFAST_BIN_DIR; run as root or set HOLDFAST_BIN_DIR"
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  get "$name.sha256" "$work/sum"
  wanted=$(cut -d ' ' -f 1 < "$work/sum")
  case $wanted in *[!0-9a-f]* | '') fail "$name.sha256 holds no checksum" ;; esac
  [ ${#wanted} -eq 64 ] || fail "$name.sha256 holds no SHA-256 checksum"
  if [ -e "$target" ] && [ "$(digest "$target")" = "$wanted" ]; then
    said=$("$target" version)
    check_version "$said"
    say "$target is up to date: $said"
    return
  fi
  get "$name" "$work/holdfast"
  found=$(digest "$work/holdfast")
  [ "$found" = "$wanted" ] || fail "checksum of $name is $found, expected $wanted: nothing was changed"
  chmod 755 "$work/holdfast"
  # Never trust the exit code: a stripped file is a bare runtime that exits 0.
  said=$("$work/holdfast" version 2> /dev/null || true)
  case $said in holdfast\ *) ;; *) fail "$name does not call itself holdfast (was it stripped?): nothing was changed" ;; esac
  check_version "$said"
  # On disk before it has its name: after a power cut the old one is there, or all of the new one.
  sync "$work/holdfast" 2> /dev/null || sync 2> /dev/null || true
  mv -f "$work/holdfast" "$target"
  say "installed $said as $target"
  say "next: $target run --kubeconfig FILE    (see: $target help run)"
}

main "$@"
