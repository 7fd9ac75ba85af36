# shellcheck shell=sh
# Stagegate's hands on a node, the part that only looks: function definitions, sent by stdin with each call and evaluated by
# `sh`, so that nothing is installed on a node and no two versions can meet. Needs a POSIX sh, coreutils, util-linux (flock,
# setsid) and Linux' /proc; tar for builds that come over SSH. docs/ARCHITECTURE.md has the node directory's layout.
#
# A call sets its request as variables ($dir $pid_file …) and runs the function named for it, `call_observe` and so on, which
# answers on stdout, line by line, `end` last. It sends only the files that it needs: asking.sh changes nodes and asks for
# steps, and step.sh is what a step's own process is made of.
#
# Looking is made of builtins (a fork costs more than the look); every state file is written beside and renamed.
# shellcheck disable=SC2034,SC2154 # the request's variables are assigned by the caller; some results are read elsewhere

set -u
LC_ALL=C
export LC_ALL
unset CDPATH
umask 022

# fail TRIED WHY: ends the call.
fail() {
	printf 'failed %s\n%s\nend\n' "$1" "$2"
	exit 0
}

# look_process PID: is it alive? Sets $started (ticks since boot) and $group.
look_process() {
	started='' group='' stat_text=''
	# A process may have a newline in its name: all lines, then what follows the last parenthesis.
	{ while IFS= read -r stat_line; do stat_text="$stat_text $stat_line"; done <"/proc/$1/stat"; } 2>/dev/null
	[ -n "$stat_text" ] || return 1
	# shellcheck disable=SC2086 # split into fields
	set -- ${stat_text##*) }
	[ $# -ge 20 ] || return 1
	case $1 in [ZXx]) return 1 ;; esac
	group=$3 started=${20}
}

# same_process PID TICKS BOOT: is this very process alive? A pid alone is reused, across boots even with its ticks.
same_process() {
	boot=''
	read -r boot </proc/sys/kernel/random/boot_id
	[ "${3-}" = "$boot" ] && look_process "$1" && [ "$started" = "$2" ]
}

# processes_below PID: sets $below to it and its descendants.
processes_below() {
	below='' todo=$1
	while [ -n "$todo" ]; do
		# shellcheck disable=SC2086 # a list of pids
		set -- $todo
		todo=''
		for each in "$@"; do
			below="$below $each"
			for children in /proc/"$each"/task/*/children; do
				kids=''
				{ read -r kids <"$children"; } 2>/dev/null
				[ -z "$kids" ] || todo="$todo $kids"
			done
		done
	done
}

# Hundredths of a second since boot, in $uptime: no wall clock is needed to keep a deadline, and none can jump.
look_uptime() {
	read -r uptime _ </proc/uptime
	uptime=${uptime%.*}${uptime#*.}
}

# look_marked MARK…: sets $marked to the processes that carry the mark of one of these steps in their environment.
look_marked() {
	for each in "$@"; do
		shift
		[ -z "$each" ] || set -- "$@" -e "STAGEGATE_STEP=$each"
	done
	marked=''
	[ $# -gt 0 ] || return 0
	files=$(grep -lszFx "$@" /proc/[0-9]*/environ)
	for each in $files; do
		each=${each#/proc/}
		marked="$marked ${each%/environ}"
	done
}

# Is this directory a copy? `here` in it leads to its lock file by the way from the root, so in a copy to that of the original,
# and nowhere once the directory was moved. What a copy says of processes is about those of its original, which may live on this
# very machine.
is_copy() {
	# shellcheck disable=SC3013 # -ef is in dash, bash, busybox and the POSIX of 2024
	[ -e here ] && ! [ here -ef .lock ]
}

# Reads the record of the service that we started last, in $ran, $ran_pid, $ran_ticks, $ran_since and $ran_mark. False when
# there is none of this boot.
look_record() {
	! is_copy && [ -s running ] || return 1
	read -r ran ran_pid ran_ticks ran_boot ran_since ran_mark <running
	read -r boot </proc/sys/kernel/random/boot_id
	[ "$ran_boot" = "$boot" ]
}

# What the last service that we started has left, its main process being gone: sets $remains to their pids and $service_mark.
look_remains() {
	remains='' service_mark=''
	look_record && [ -n "$ran_mark" ] || return 1
	service_mark=$ran_mark
	look_marked "$service_mark"
	remains=$marked
	[ -n "$remains" ]
}

# Looks for the service. Sets $service_pid (empty when there is none), $service_ticks, $service_group, $service_release
# (`-` when no step of ours started it), $service_since (seconds since the epoch) and $service_mark (empty likewise).
look_service() {
	service_pid='' service_release='-' service_since=0 service_mark='' found=''
	[ -n "$pid_file" ] && ! is_copy || return 1
	[ ! -s "$pid_file" ] || { read -r found _ <"$pid_file"; } 2>/dev/null
	case $found in
	'' | *[!0-9]*) found='' ;;
	*) look_process "$found" || found='' ;;
	esac
	if look_record; then
		# A service whose pid file was lost is one all the same, as long as its process lives.
		if [ -z "$found" ] && look_process "$ran_pid" && [ "$started" = "$ran_ticks" ]; then found=$ran_pid; fi
		if [ "$found $started" = "$ran_pid $ran_ticks" ]; then
			service_pid=$found service_ticks=$started service_group=$group
			service_release=$ran service_since=$ran_since service_mark=$ran_mark
			return 0
		fi
	fi
	[ -n "$found" ] || return 1
	service_ticks=$started service_group=$group
	# Not ours, or a stale file whose number went to somebody else: a process younger than the file cannot be meant.
	look_uptime
	wrote=$(stat -L -c %Y -- "$pid_file") && now=$(date +%s) || return 1
	# Ticks are hundredths of a second in user space on every architecture that we run on (USER_HZ).
	service_since=$((now - (uptime - service_ticks) / 100))
	[ "$service_since" -le $((wrote + 2)) ] || return 1
	service_pid=$found
}

# Is a complete release named by a digest?
is_digest() {
	[ ${#1} -eq 64 ] || return 1
	case $1 in *[!0-9a-f]*) return 1 ;; esac
}

# Sets $current to the digest that the link points to, empty when there is none.
look_current() {
	current=''
	if cd -P current 2>/dev/null; then
		current=${PWD##*/}
		cd -- "$node" || exit 1
		is_digest "$current" || current=''
	fi
}

# Sets $newest_first to the complete releases, the one completed last first.
look_releases() {
	newest_first=''
	for complete in releases/*/.complete; do
		[ -e "$complete" ] || continue
		complete=${complete#releases/}
		complete=${complete%/.complete}
		is_digest "$complete" || continue
		sorted='' next=$complete
		for other in $newest_first; do
			# shellcheck disable=SC3013 # -nt is in dash, bash, busybox and the POSIX of 2024
			if [ -n "$next" ] && [ "releases/$next/.complete" -nt "releases/$other/.complete" ]; then
				sorted="$sorted $next" next=''
			fi
			sorted="$sorted $other"
		done
		newest_first="$sorted $next"
	done
}

# look_step ID: sets $state to running, died, ended, or empty for a step that never began.
look_step() {
	state='' at=steps/$1
	[ -d "$at" ] || return 0
	if [ -e "$at/rc" ]; then
		state=ended
		return 0
	fi
	one='' two='' three=''
	{ read -r one two three <"$at/pid"; } 2>/dev/null
	if is_copy; then
		state=died
	elif [ -z "$three" ]; then
		# Put on record, its process not yet; the lock tells whether one is on its way.
		[ -e "$at/lock" ] && ! flock -n -s "$at/lock" true && state=running
	elif same_process "$one" "$two" "$three"; then
		state=running
	elif [ -e "$at/rc" ]; then
		# It ended between our two looks.
		state=ended
	elif orphan_lives "$at"; then
		state=running
	else
		state=died
		[ ! -e "$at/secrets" ] || rm -rf -- "$at/secrets"
	fi
}

# orphan_lives STEP_DIRECTORY: does its script outlive the process that watched it? Leaves its pid in $one.
orphan_lives() {
	one='' two='' three=''
	{ read -r one two three <"$1/group"; } 2>/dev/null
	[ -n "$three" ] && same_process "$one" "$two" "$three"
}

# Prints what the node is like, and where the steps in $asked stand.
sight() {
	[ ! -e .set-up ] || printf 'setup\n'
	look_current
	[ -z "$current" ] || printf 'current %s\n' "$current"
	look_releases
	for complete in $newest_first; do printf 'release %s\n' "$complete"; done
	if [ -s fence ]; then
		read -r seen_home seen <fence && printf 'fence %s %s\n' "$seen_home" "$seen"
	fi
	if look_service; then
		printf 'running %s %s %s\n' "$service_release" "$service_pid" "$service_since"
	elif look_remains; then
		printf 'remains%s\n' "$remains"
	fi
	for id in $asked; do
		look_step "$id"
		case $state in
		running | died) printf 'step %s %s\n' "$id" "$state" ;;
		ended)
			{
				read -r rc
				printf 'step %s ended %s\n' "$id" "$rc"
				while IFS= read -r line || [ -n "$line" ]; do printf 'log %s\n' "$line"; done
			} <"steps/$id/rc"
			;;
		esac
	done
}

# Free space is a fork, and is asked for by looks only: a step that ended has other things to say.
call_observe() {
	if cd -P -- "$dir" 2>/dev/null; then
		node=$PWD
		sight
		stat -f -c 'free %a %S' . || fail 'look at the free space' 'stat -f failed'
	elif [ -e "$dir" ]; then
		fail 'enter the node directory' "cannot enter $dir"
	else
		# Before its first step a node has no directory; its space is that of the nearest one above.
		above=$dir
		while [ ! -d "$above" ]; do
			case $above in
			?*/*) above=${above%/*} ;;
			/*) above=/ ;;
			*) above=. ;;
			esac
		done
		stat -f -c 'free %a %S' -- "$above" || fail 'look at the free space' 'stat -f failed'
	fi
	printf 'end\n'
}

# Prints a piece of a followed file, whatever it is called by now: a line `tail INODE SIZE OFFSET CURRENT`, then the bytes.
# CURRENT is the inode that the path names now, `-` when there is no such file; `gone CURRENT` says that the file that was
# followed is nowhere beside it. Log rotation renames a file to a longer name, and its writer goes on with it for a while.
call_tail() {
	cd -P -- "$dir" 2>/dev/null || fail 'enter the node directory' "cannot enter $dir"
	case $file in -*) file=./$file ;; esac
	current='-'
	# shellcheck disable=SC2046 # two numbers
	set -- $(stat -L -c '%i %s' -- "$file" 2>/dev/null)
	if [ $# -eq 2 ]; then
		current=$1
	elif [ -e "$file" ]; then
		fail 'read the file' "cannot look at $file"
	fi
	case $inode in
	start) inode=$current offset=0 ;;
	end) inode=$current offset=${2-0} ;;
	esac
	name=$file
	if [ "$inode" != "$current" ]; then
		name=''
		while read -r found beside; do
			[ "$found" != "$inode" ] || name=$beside
		done <<-LIST
			$(stat -c '%i %n' -- "$file"?* 2>/dev/null)
		LIST
	fi
	if [ -z "$name" ] || [ "$inode" = - ]; then
		printf 'gone %s\n' "$current"
		return 0
	fi
	[ -f "$name" ] || fail 'read the file' "$name is not a file"
	[ -r "$name" ] || fail 'read the file' "no permission to read $name"
	# Opened before it is looked at: its name may go to another file in between.
	piece 4<"$name" || fail 'read the file' "$name was renamed meanwhile"
}

# Prints the piece of the file on descriptor 4. False when that is another file than the one that is followed.
piece() {
	# shellcheck disable=SC2046 # two numbers
	set -- $(stat -L -c '%i %s' /proc/self/fd/4)
	[ "${1-}" = "$inode" ] || return 1
	# Cut back in place: from its beginning.
	[ "$2" -ge "$offset" ] || offset=0
	printf 'tail %s %s %s %s\n' "$inode" "$2" "$offset" "$current"
	[ "$2" -eq "$offset" ] || tail -c "+$((offset + 1))" <&4 | head -c "$at_most"
}

# Prints the established connections of the service's processes to $port: one line `socket ADDRESS:PORT` each, both in the
# kernel's hexadecimal.
call_sockets() {
	cd -P -- "$dir" 2>/dev/null || fail 'enter the node directory' "cannot enter $dir"
	if look_service; then
		[ -e "/proc/$service_pid/task/$service_pid/children" ] ||
			fail 'list the processes of the service' "this kernel has no /proc/PID/task/TID/children"
		processes_below "$service_pid"
		open=' '
		for each in $below; do
			# shellcheck disable=SC2012 # these names are numbers; a readlink for each would be a fork for each
			open="$open$(ls -l "/proc/$each/fd" 2>/dev/null | while read -r _ _ _ _ _ _ _ _ _ _ target; do
				case $target in 'socket:['*) printf '%s ' "${target#socket:}" ;; esac
			done)"
		done
		# Fields: number, local, remote, state (01: established), …, inode in the tenth.
		grep -hi ":$(printf %04X "$port") 01 " "/proc/$service_pid/net/tcp" "/proc/$service_pid/net/tcp6" 2>/dev/null |
			while read -r _ local _ _ _ _ _ _ _ socket _; do
				case $open in *"[$socket]"*) printf 'socket %s\n' "$local" ;; esac
			done
	fi
	printf 'end\n'
}
