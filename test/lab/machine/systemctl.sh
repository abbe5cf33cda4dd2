#!/bin/sh
# The few verbs of systemctl that kubeadm and the README use, on unit files as
# they are: drop-ins, environment files, Restart=, ExecStartPost=, and the order that Before= asks
# for. Units log to /var/lib/lab-log.
units=/etc/systemd/system
wanted=$units/multi-user.target.wants
state=/run/lab-units
log=/var/lib/lab-log
mkdir -p $state $log

files() { ls "$units/$1.service" "$units/$1.service.d"/*.conf 2> /dev/null; }

# The values of a key, in the order of the files.
values() { cat $(files "$1") | sed -n "s/^$2=//p"; }

isRunning() { [ -f "$state/$1.pid" ] && kill -0 "$(cat "$state/$1.pid")" 2> /dev/null; }

need() {
  [ -f "$units/$1.service" ] && return
  echo "Unit $1.service could not be found." >&2
  exit 4
}

# Becomes the unit's program; $VARIABLES in ExecStart become words, as systemd has it.
become() {
  values "$1" Environment > "$state/$1.env"
  while read -r line; do eval "export $line"; done < "$state/$1.env"
  for file in $(values "$1" EnvironmentFile | sed 's/^-//'); do
    [ -f "$file" ] && { set -a; . "$file"; set +a; }
  done
  eval "exec $(values "$1" ExecStart | tail -n 1)"
}

# Runs the program, again and again where the unit says so.
keep() {
  pause=$(values "$1" RestartSec | tail -n 1)
  while :; do
    "$0" become "$1" >> "$log/$1.log" 2>&1 &
    echo $! > "$state/$1.main"
    wait $!
    [ "$(values "$1" Restart | tail -n 1)" = always ] || break
    sleep "${pause:-0.1}"
  done
}

start() {
  need "$1"
  isRunning "$1" && return
  setsid "$0" keep "$1" > /dev/null 2>&1 < /dev/null &
  echo $! > "$state/$1.pid"
  eval "$(values "$1" ExecStartPost)" > /dev/null 2>&1
}

stop() {
  isRunning "$1" || return 0
  kill -KILL "$(cat "$state/$1.pid")"
  main=$(cat "$state/$1.main" 2> /dev/null)
  kill -TERM "$main" 2> /dev/null
  for _ in $(seq 100); do
    kill -0 "$main" 2> /dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$main"
}

enable() {
  need "$1"
  if ! grep -q '^WantedBy=multi-user.target' "$units/$1.service"; then
    echo "The unit files have no installation config (WantedBy=)." >&2
    exit 1
  fi
  mkdir -p $wanted
  ln -sf "$units/$1.service" "$wanted/$1.service"
}

# What is enabled: first that which wants to be there before something else.
boot() {
  cd $wanted 2> /dev/null || return 0
  for file in $(grep -l '^Before=' *.service) $(grep -L '^Before=' *.service); do start "${file%.service}"; done
}

verb=$1
shift
now=
[ "$1" = --now ] && { now=yes; shift; }
unit=${1%.service}
case $verb in
  daemon-reload) ;;
  boot) boot ;;
  become | keep | start | stop) $verb "$unit" ;;
  restart) stop "$unit" && start "$unit" ;;
  enable) enable "$unit" && { [ -z "$now" ] || start "$unit"; } ;;
  is-enabled) [ -e "$wanted/$unit.service" ] ;;
  is-active) isRunning "$unit" && echo active || { echo inactive; exit 3; } ;;
  status) need "$unit" && echo "Loaded: loaded ($units/$unit.service)" ;;
  *) echo "Unknown verb $verb" >&2; exit 1 ;;
esac
