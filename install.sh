#!/bin/sh
# Installs Holdfast on a node: the executable, verified and moved into place, its units and scripts.
#
#   HOLDFAST_ARTIFACT_DIR=/media/usb sh install.sh         from a folder: a release, or dist/ as it was built
#   HOLDFAST_BASE_URL=https://HOST/PATH sh install.sh      from a server with a release
#   sh install.sh --dry-run                                says what would be done
#   sh install.sh --uninstall [--purge]                    removes what it created; --purge also what Holdfast kept
#   sh install.sh --help
#
# A second run with the same file changes nothing. A file that does not verify, or does not call itself
# holdfast (a stripped one would not), never replaces what is there. A unit of the same name that was not
# brought from here is left alone. Nothing is enabled: that does "holdfast adopt". A running daemon is
# restarted when its executable or its unit has changed; kubelet and its pods are not.
#
# A release is SHA256SUMS, its signature, and the executables as .xz. The signature is checked with minisign,
# signify or openssl, whichever is here, against the public key below, which a release's own copy of this
# script carries. From a server nothing is taken that nobody vouches for, unless HOLDFAST_SKIP_SIGNATURE says so;
# a folder whose files nobody signed (dist/) is taken when this script carries no key.
set -eu

HOLDFAST_BASE_URL=${HOLDFAST_BASE_URL:-}                # folder of a server; there is no public release yet, so no default
HOLDFAST_ARTIFACT_DIR=${HOLDFAST_ARTIFACT_DIR:-}        # local folder, for machines without a network; wins over the URL
HOLDFAST_VERSION=${HOLDFAST_VERSION:-}                  # the only version to accept, such as 0.1.0; empty accepts any
HOLDFAST_BIN_DIR=${HOLDFAST_BIN_DIR:-/usr/local/bin}    # where the executable goes
HOLDFAST_ROOT=${HOLDFAST_ROOT:-}                        # another root folder, for images: nothing is started there
HOLDFAST_SKIP_UNITS=${HOLDFAST_SKIP_UNITS:-}            # not empty: the executable alone
HOLDFAST_SKIP_RESTART=${HOLDFAST_SKIP_RESTART:-}        # not empty: a running daemon goes on as it is
SYSTEMCTL=${SYSTEMCTL:-systemctl}
HOLDFAST_SKIP_SIGNATURE=${HOLDFAST_SKIP_SIGNATURE:-}    # not empty: checksums alone, whoever made them
DRY_RUN=${DRY_RUN:-}                                    # not empty: say what would be done
# minisign's form, the second line of holdfast.pub; a release writes its own behind the minus.
HOLDFAST_PUBLIC_KEY=${HOLDFAST_PUBLIC_KEY:-}

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

# get NAME FILE [progress]
get() {
  if [ -n "$HOLDFAST_ARTIFACT_DIR" ]; then
    [ -r "$HOLDFAST_ARTIFACT_DIR/$1" ] || fail "\"$HOLDFAST_ARTIFACT_DIR/$1\" cannot be read"
    cat "$HOLDFAST_ARTIFACT_DIR/$1" > "$2"
  elif command -v curl > /dev/null 2>&1; then
    quiet=-s
    if [ -n "${3:-}" ] && [ -t 2 ]; then quiet=-#; fi
    curl "$quiet" -fSL --retry 3 -o "$2" "$HOLDFAST_BASE_URL/$1" || fail "cannot download $HOLDFAST_BASE_URL/$1"
  elif command -v wget > /dev/null 2>&1; then
    quiet=-q
    if [ -n "${3:-}" ] && [ -t 2 ]; then quiet=-nv; fi
    wget "$quiet" -O "$2" "$HOLDFAST_BASE_URL/$1" || fail "cannot download $HOLDFAST_BASE_URL/$1"
  else
    fail "neither curl nor wget is here: copy the files over and set HOLDFAST_ARTIFACT_DIR"
  fi
}

# has NAME: whether the place holds this file; of a server it is asked for.
has() {
  if [ -n "$HOLDFAST_ARTIFACT_DIR" ]; then [ -r "$HOLDFAST_ARTIFACT_DIR/$1" ]; return; fi
  if command -v curl > /dev/null 2>&1; then curl -fsSLI "$HOLDFAST_BASE_URL/$1" > /dev/null 2>&1; return; fi
  if command -v wget > /dev/null 2>&1; then wget -q --spider "$HOLDFAST_BASE_URL/$1" 2> /dev/null; return; fi
  fail "neither curl nor wget is here: copy the files over and set HOLDFAST_ARTIFACT_DIR"
}

decode() {
  if command -v base64 > /dev/null 2>&1; then base64 -d; else openssl base64 -d -A; fi
}

# verify WORK: whether the public key vouches for WORK/sums. All three read the same two lines: Ed25519 over the file.
verify() {
  if command -v minisign > /dev/null 2>&1; then
    minisign -Vq -P "$HOLDFAST_PUBLIC_KEY" -x "$1/sums.sig" -m "$1/sums" > /dev/null 2>&1
    return
  fi
  for signify in signify-openbsd signify; do
    command -v "$signify" > /dev/null 2>&1 || continue
    printf 'untrusted comment: holdfast\n%s\n' "$HOLDFAST_PUBLIC_KEY" > "$1/key.pub"
    head -n 2 "$1/sums.sig" > "$1/sums.signify"
    "$signify" -Vq -p "$1/key.pub" -x "$1/sums.signify" -m "$1/sums" > /dev/null 2>&1
    return
  done
  if command -v openssl > /dev/null 2>&1; then
    # The last 32 bytes of the key behind the header of an Ed25519 key (RFC 8410), the last 64 of the signature.
    { printf '\060\052\060\005\006\003\053\145\160\003\041\000'; printf '%s\n' "$HOLDFAST_PUBLIC_KEY" | decode | tail -c 32; } > "$1/key.der"
    sed -n 2p "$1/sums.sig" | decode | tail -c 64 > "$1/sums.raw"
    openssl pkeyutl -verify -pubin -keyform DER -inkey "$1/key.der" -rawin -in "$1/sums" -sigfile "$1/sums.raw" > /dev/null 2>&1
    return
  fi
  fail "nothing here can check a signature: install minisign (or openssl); HOLDFAST_SKIP_SIGNATURE=1 goes by checksums alone"
}

# vouched WORK: refuses sums that nobody vouches for.
vouched() {
  if [ -n "$HOLDFAST_SKIP_SIGNATURE" ]; then say "the signature was not checked"; return 0; fi
  if [ -z "$HOLDFAST_PUBLIC_KEY" ]; then
    # What lies in a folder is as good as who brought it.
    [ -z "$HOLDFAST_ARTIFACT_DIR" ] || return 0
    fail "this script carries no public key: use a release's own copy, or say HOLDFAST_PUBLIC_KEY=KEY; HOLDFAST_SKIP_SIGNATURE=1 goes by checksums alone"
  fi
  get SHA256SUMS.minisig "$1/sums.sig"
  verify "$1" || fail "SHA256SUMS is not signed with the public key $HOLDFAST_PUBLIC_KEY: nothing was changed"
}

# sums NAME WORK: puts what is said of the files into WORK/sums; of a folder as it was built the file's own .sha256.
sums() {
  if has SHA256SUMS; then
    get SHA256SUMS "$2/sums"
    vouched "$2"
  elif [ -n "$HOLDFAST_PUBLIC_KEY" ] && [ -z "$HOLDFAST_SKIP_SIGNATURE" ]; then
    fail "${HOLDFAST_ARTIFACT_DIR:-$HOLDFAST_BASE_URL} has no SHA256SUMS, and so nothing that is signed"
  else
    [ -n "$HOLDFAST_ARTIFACT_DIR" ] || [ -n "$HOLDFAST_SKIP_SIGNATURE" ] || vouched "$2"
    get "$1.sha256" "$2/sums"
  fi
}

# said_of NAME WORK: what the sums say of a file; nothing where they do not name it.
said_of() {
  while read -r sum file; do [ "$file" != "$1" ] || { printf '%s\n' "$sum"; break; }; done < "$2/sums"
}

# sum_of NAME WORK
sum_of() {
  wanted=$(said_of "$1" "$2")
  case $wanted in *[!0-9a-f]* | '') fail "${HOLDFAST_ARTIFACT_DIR:-$HOLDFAST_BASE_URL} holds no checksum of $1" ;; esac
  [ ${#wanted} -eq 64 ] || fail "${HOLDFAST_ARTIFACT_DIR:-$HOLDFAST_BASE_URL} holds no SHA-256 checksum of $1"
  printf '%s\n' "$wanted"
}

# fetch NAME WORK: brings the executable to WORK/holdfast, unpacked, and checked on its way.
fetch() {
  if [ -n "$(said_of "$1.xz" "$2")" ]; then
    command -v xz > /dev/null 2>&1 || fail "xz is missing: apt-get install xz-utils (or unpack $1.xz elsewhere, beside SHA256SUMS)"
    expected=$(sum_of "$1.xz" "$2") || exit 1
    get "$1.xz" "$2/packed" progress
    found=$(digest "$2/packed")
    [ "$found" = "$expected" ] || fail "checksum of $1.xz is $found, expected $expected: nothing was changed"
    xz -dc < "$2/packed" > "$2/holdfast" || fail "$1.xz cannot be unpacked: nothing was changed"
    rm -f "$2/packed"
  else
    get "$1" "$2/holdfast" progress
  fi
  found=$(digest "$2/holdfast")
  [ "$found" = "$3" ] || fail "checksum of $1 is $found, expected $3: nothing was changed"
}

check_version() {
  wanted_version=${HOLDFAST_VERSION#v}
  [ -n "$wanted_version" ] || return 0
  case $1 in "holdfast $wanted_version "*) ;; *) fail "offered is $1, wanted is $wanted_version: nothing was changed" ;; esac
}

# Only a loopback server may go without TLS: it is this machine.
check_url() {
  case $HOLDFAST_BASE_URL in
    '' | https://* | http://localhost[:/]* | http://127.0.0.1[:/]*) ;;
    *) fail "HOLDFAST_BASE_URL must begin with https://" ;;
  esac
}

digest() { sha256sum "$1" | cut -d ' ' -f 1; }

# Every file that came from here, a line each.
list_file() { printf '%s\n' "$HOLDFAST_ROOT/usr/local/lib/holdfast/installed"; }

is_ours() { [ -e "$(list_file)" ] && while read -r line; do [ "$line" != "$1" ] || return 0; done < "$(list_file)" && return 1; }

remember() {
  is_ours "$1" && return
  mkdir -p "$HOLDFAST_ROOT/usr/local/lib/holdfast"
  printf '%s\n' "$1" >> "$(list_file)"
}

# On this machine, with systemd at work; never for an image.
systemd() {
  if [ -n "$HOLDFAST_ROOT" ] && [ "$SYSTEMCTL" = systemctl ]; then return 0; fi
  command -v "$SYSTEMCTL" > /dev/null 2>&1 || return 0
  "$SYSTEMCTL" "$@" || say "systemctl $* failed: see systemctl status holdfast"
}

# folder PATH: makes it, and remembers each that was not there by a slash at its end.
folder() {
  [ ! -d "$1" ] || return 0
  case $1 in ?*/*) folder "${1%/*}" ;; esac
  mkdir "$1"
  remember "$1/"
}

# place FILE PATH: puts a file in its place, old or new and never half. Sets changed=yes where it differed.
place() {
  to=$HOLDFAST_ROOT$2
  if [ -e "$to" ]; then
    if [ "$(digest "$1")" = "$(digest "$to")" ]; then remember "$to"; return; fi
    if ! is_ours "$to"; then say "left alone: $to is not from here; to have ours, move it away and run this again"; return; fi
  fi
  folder "${to%/*}"
  case $2 in *.sh) chmod 755 "$1" ;; *) chmod 644 "$1" ;; esac
  # Written down first: what a killed run has brought is then known.
  remember "$to"
  cat "$1" > "$to.holdfast-new"
  chmod "$(case $2 in *.sh) echo 755 ;; *) echo 644 ;; esac)" "$to.holdfast-new"
  mv -f "$to.holdfast-new" "$to"
  say "brought $to"
  changed=yes
}

# units TARGET WORK: the executable itself knows its units.
units() {
  "$1" units --binary "$HOLDFAST_BIN_DIR/holdfast" --output-dir "$2/units" > "$2/list" || fail "$1 cannot write its units"
  while read -r line; do
    case $line in "$2/units"/*) place "$line" "${line#"$2/units"}" ;; esac
  done < "$2/list"
}

# words TARGET WORK: completions and manual pages, by the executable itself; one that knows none is installed without.
words() {
  "$1" completion --output-dir "$2/words" > "$2/list" 2> /dev/null || return 0
  # They change nothing that runs.
  was=$changed
  while read -r line; do
    case $line in "$2/words"/*) place "$line" "${line#"$2/words"}" ;; esac
  done < "$2/list"
  changed=$was
}

# Whether kubelet's way leads through us: adopted, or led here by hand.
check_kubelet() {
  again="; then run this again"
  if [ -e "$HOLDFAST_ROOT/etc/systemd/system/kubelet.service.d/zz-holdfast.conf" ]; then
    fail "kubelet goes through Holdfast, and would stand before a closed port: holdfast revert (or: sh /usr/local/lib/holdfast/bypass.sh --revert)$again"
  fi
  conf=$HOLDFAST_ROOT/etc/kubernetes/kubelet.conf
  [ -r "$conf" ] || return 0
  case $(cat "$conf") in
    *127.0.0.1:10268*) fail "$conf leads kubelet to Holdfast: put the API server's address and CA back, restart kubelet$again" ;;
  esac
}

uninstall() {
  target=$HOLDFAST_ROOT$HOLDFAST_BIN_DIR/holdfast
  check_kubelet
  if [ ! -e "$target" ] && [ ! -e "$(list_file)" ] && [ -z "$PURGE" ]; then say "nothing to remove: $target is not there"; return; fi
  would=${DRY_RUN:+would }
  if [ -z "$DRY_RUN" ] && [ -e "$(list_file)" ]; then
    systemd disable --now holdfast-bypass.timer holdfast.service holdfast-pods.service holdfast-seal-key.service
  fi
  if [ -e "$(list_file)" ]; then
    folders=''
    while read -r line; do
      [ "$line" != "$target" ] || continue
      case $line in */) folders="$line
$folders"; continue ;; esac
      [ -n "$DRY_RUN" ] || rm -f "$line"
      say "${would}remove $line"
    done < "$(list_file)"
    if [ -z "$DRY_RUN" ]; then
      rm -f "$(list_file)"
      # The last one made first; one that holds somebody's file stays.
      printf '%s' "$folders" | while read -r line; do rmdir "$line" 2> /dev/null || true; done
      rmdir "$HOLDFAST_ROOT/usr/local/lib/holdfast" 2> /dev/null || true
      systemd daemon-reload
    fi
  fi
  if [ -n "$DRY_RUN" ]; then say "would remove $target"; else rm -f "$target"; say "removed $target"; fi
  for kept in "$HOLDFAST_ROOT/var/lib/holdfast" "$HOLDFAST_ROOT/etc/holdfast"; do
    if [ -z "$PURGE" ]; then say "what it kept is still in $kept"; continue; fi
    [ -n "$DRY_RUN" ] || rm -rf "$kept"
    say "${would}remove $kept"
  done
}

# finish WORK: units and list; a daemon that runs is restarted where something changed.
finish() {
  [ -z "$HOLDFAST_SKIP_UNITS" ] || return 0
  remember "$target"
  units "$target" "$1"
  words "$target" "$1"
  [ -n "$changed" ] || return 0
  systemd daemon-reload
  [ -n "$HOLDFAST_SKIP_RESTART" ] || systemd try-restart holdfast.service
}

usage() {
  say "Installs Holdfast: the executable, its units and scripts."
  say ""
  say "  HOLDFAST_ARTIFACT_DIR=DIR sh install.sh       from a folder: a release, or dist/ as it was built"
  say "  HOLDFAST_BASE_URL=https://... sh install.sh   from a server with a release"
  say "  sh install.sh --dry-run                       says what would be done"
  say "  sh install.sh --uninstall [--purge]           removes what it created; --purge also what Holdfast kept"
  say ""
  say "Also: HOLDFAST_VERSION (with or without v), HOLDFAST_BIN_DIR, HOLDFAST_ROOT, HOLDFAST_SKIP_UNITS,"
  say "HOLDFAST_SKIP_RESTART, HOLDFAST_PUBLIC_KEY, HOLDFAST_SKIP_SIGNATURE."
  say "What it created is listed in $(list_file)."
}

main() {
  action=install PURGE='' changed=''
  for word; do
    case $word in
      --uninstall) action=uninstall ;;
      --purge) PURGE=yes ;;
      --dry-run) DRY_RUN=yes ;;
      --help | -h) usage; return ;;
      *) fail "unknown argument \"$word\"; there are --dry-run, --uninstall, --purge and --help" ;;
    esac
  done
  if [ $action = uninstall ]; then uninstall; return; fi
  [ -z "$PURGE" ] || fail "--purge goes with --uninstall"
  check_url
  arch=$(architecture)
  check_loader "$arch"
  name=holdfast-linux-$arch
  bin=$HOLDFAST_ROOT$HOLDFAST_BIN_DIR
  target=$bin/holdfast
  if [ -z "$HOLDFAST_ARTIFACT_DIR$HOLDFAST_BASE_URL" ]; then
    fail "say where the files are: HOLDFAST_ARTIFACT_DIR=DIR (as made by 'bun run build' in dist) or HOLDFAST_BASE_URL=URL"
  fi
  if [ -n "$DRY_RUN" ]; then
    say "would install $name from ${HOLDFAST_ARTIFACT_DIR:-$HOLDFAST_BASE_URL} as $target"
    [ -n "$HOLDFAST_SKIP_UNITS" ] || say "would bring its units into $HOLDFAST_ROOT/etc/systemd/system and its scripts into $HOLDFAST_ROOT/usr/local/lib/holdfast"
    return
  fi
  [ ! -d "$target" ] || fail "$target is a folder"
  mkdir -p "$bin" || fail "cannot make $bin; run as root or set HOLDFAST_BIN_DIR"
  # In the target's own folder: the last step must be a rename within one file system.
  rm -rf "$bin"/.holdfast.??????
  work=$(mktemp -d "$bin/.holdfast.XXXXXX") || fail "cannot write into $bin; run as root or set HOLDFAST_BIN_DIR"
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  sums "$name" "$work"
  wanted=$(sum_of "$name" "$work") || exit 1
  if [ -e "$target" ] && [ "$(digest "$target")" = "$wanted" ]; then
    said=$("$target" version)
    check_version "$said"
    say "$target is up to date: $said"
    finish "$work"
    return
  fi
  fetch "$name" "$work" "$wanted"
  chmod 755 "$work/holdfast"
  # Never trust the exit code: a stripped file is a bare runtime that exits 0.
  said=$("$work/holdfast" version 2> /dev/null || true)
  case $said in holdfast\ *) ;; *) fail "$name does not call itself holdfast (was it stripped?): nothing was changed" ;; esac
  check_version "$said"
  # On disk before it has its name: after a power cut the old one is there, or all of the new one.
  sync "$work/holdfast" 2> /dev/null || sync 2> /dev/null || true
  mv -f "$work/holdfast" "$target"
  say "installed $said as $target"
  changed=yes
  finish "$work"
  say "next: $target adopt on a node that kubeadm joined; else $target run --kubeconfig FILE"
}

main "$@"
