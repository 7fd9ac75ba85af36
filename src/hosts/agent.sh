# shellcheck shell=sh
# Stagegate's hands on a node: function definitions only, sent by stdin with each call and evaluated by `sh`, so that
# nothing is installed on a node and no two versions can meet. Needs a POSIX sh, coreutils, util-linux (flock, setsid) and
# Linux' /proc; tar for builds that come over SSH. docs/ARCHITECTURE.md has the node directory's layout.
#
# A call sets its request as variables ($call $dir $pid_file …) and a function `payload` that writes a step's files; then
# `agent` answers on stdout, line by line, `end` last. A step runs in a process of its own (`step_main`), which outlives the
# call and its connection.
#
# Looking is made of builtins (a fork costs more than the look); every state file is written beside and renamed.
# shellcheck disable=SC2154 # the request's variables are assigned by the caller

set -u
LC_ALL=C
export LC_ALL
unset CDPATH
umask 022

# A log keeps this much from its beginning, and as much from its end: 64 KiB are about 800 lines, more than a person reads.
log_bytes=65536
# Kept free while a step runs, so that a disk that the step fills has room for the step's own end.
reserve_bytes=65536

agent() {
	case $call in
	observe) call_observe ;;
	run) call_run ;;
	adopt) call_adopt ;;
	look) call_look ;;
	copy | receive) call_deliver ;;
	destroy) call_destroy ;;
	tail) call_tail ;;
	sockets) call_sockets ;;
	esac
}

# ---------------------------------------------------------------------------------------------------------- answers

# fail TRIED WHY: ends the call.
fail() {
	printf 'failed %s\n%s\nend\n' "$1" "$2"
	exit 0
}

# fail_write WHAT: ends the call after a write that did not go through, with the usual cause named.
fail_write() {
	fail "write $1" "the disk is full or read-only ($(($(stat -f -c '%a * %S' .))) bytes free)"
}

# ------------------------------------------------------------------------------------------------------------ nodes

# Enters the node directory, making it where it is missing, and takes its lock on descriptor 9.
open_node() {
	[ -d "$dir" ] || mkdir -p -- "$dir" 2>/dev/null || fail 'make the node directory' "mkdir $dir failed"
	cd -P -- "$dir" 2>/dev/null || fail 'enter the node directory' "cannot enter $dir"
	node=$PWD
	{ printf '' >>.lock; } 2>/dev/null || fail_write 'the lock file'
	exec 9>>.lock
	# Held only while a step is put on record, so a wait of seconds means a node in trouble.
	flock -w 20 9 || fail "take the node's lock" 'another call has held it for 20 s'
	# shellcheck disable=SC3013 # -ef is in dash, bash, busybox and the POSIX of 2024
	[ /proc/self/fd/9 -ef .lock ] || fail "take the node's lock" 'the node directory was deleted meanwhile'
}

# Refuses another home and an older token, and remembers a newer one before anything else happens (I2).
check_fence() {
	seen_home='' seen=0
	if [ -e fence ]; then
		read -r seen_home seen <fence || fail 'read the fence' "its line is cut: $seen_home"
		if [ "$seen_home" != "$home" ]; then
			[ "$call" = adopt ] || refuse foreign
		elif [ "$seen" -gt "$counter" ]; then
			refuse fenced
		elif [ "$seen" -eq "$counter" ]; then
			return 0
		fi
	fi
	{ printf '%s %s\n' "$home" "$counter" >fence.new; } 2>/dev/null || {
		rm -f fence.new
		fail_write 'the fence'
	}
	{ sync fence.new && mv -f fence.new fence && sync .; } || fail_write 'the fence'
}

refuse() {
	printf '%s %s %s\nend\n' "$1" "$seen_home" "$seen"
	exit 0
}

# -------------------------------------------------------------------------------------------------------- processes

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

# Looks for the service. Sets $service_pid (empty when there is none), $service_ticks, $service_group, $service_release
# (`-` when no step of ours started it) and $service_since (seconds since the epoch).
look_service() {
	service_pid='' service_release='-' service_since=0
	[ -n "$pid_file" ] && [ -s "$pid_file" ] || return 1
	found=''
	{ read -r found _ <"$pid_file"; } 2>/dev/null
	case $found in '' | *[!0-9]*) return 1 ;; esac
	look_process "$found" || return 1
	service_ticks=$started service_group=$group
	if [ -s running ]; then
		read -r ran ran_pid ran_ticks ran_boot ran_since <running
		read -r boot </proc/sys/kernel/random/boot_id
		if [ "$ran_pid $ran_ticks $ran_boot" = "$found $service_ticks $boot" ]; then
			service_pid=$found service_release=$ran service_since=$ran_since
			return 0
		fi
	fi
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
	if [ -z "$three" ]; then
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

# reap STEP_DIRECTORY: ends what a step whose watcher died has left: its script's group, what left the group, its secrets.
reap() {
	if orphan_lives "$1"; then
		kill -s KILL -- "-$one" 2>/dev/null
		# Killed is not yet gone, and who asks next must not find it.
		tries=0
		while orphan_lives "$1" && [ $tries -lt 60 ]; do nap; done
	fi
	mark=''
	{ read -r mark <"$1/mark"; } 2>/dev/null
	[ -z "$mark" ] || sweep "$mark" || note_survivors
	rm -rf -- "$1/secrets" "$1/agent" "$1/reserve" "$1"/out.*
}

# sweep MARK: kills every process that carries this step's mark in its environment, wherever it has forked to, and waits
# until none is left: one that forks while we look leaves a child, and a killed one ends when it is next scheduled. False
# when some live on, named by $strays.
sweep() {
	tries=0
	while :; do
		strays=$(grep -lszFx -- "STAGEGATE_STEP=$1" /proc/[0-9]*/environ)
		[ -n "$strays" ] || return 0
		# Seconds; a process that outlives KILL so long is stuck in the kernel (a dead disk, a dead NFS server).
		[ $tries -lt 60 ] || return 1
		for stray in $strays; do
			stray=${stray#/proc/}
			kill -s KILL "${stray%/environ}" 2>/dev/null
		done
		nap
	done
}

# Sleeps for look number $tries and counts it: most things end within milliseconds, and each look costs a fork.
nap() {
	case $tries in
	?) sleep 0.01 ;;
	[1-3]?) sleep 0.05 ;;
	*) sleep 0.2 ;;
	esac
	tries=$((tries + 1))
}

# ---------------------------------------------------------------------------------------------------------- looking

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
	! look_service || printf 'running %s %s %s\n' "$service_release" "$service_pid" "$service_since"
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
	stat -f -c 'free %a %S' . || fail 'look at the free space' 'stat -f failed'
	printf 'end\n'
}

call_observe() {
	if cd -P -- "$dir" 2>/dev/null; then
		node=$PWD
		sight
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
		printf 'end\n'
	fi
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

# --------------------------------------------------------------------------------------------------- asking for steps

# Makes sure that $step runs or ran, waits up to $patience seconds for its end, and looks.
call_run() {
	open_node
	check_fence
	look_step "$step"
	case $state in
	'') begin_step ;;
	running)
		# Joined; unless only its orphaned script runs on, which nobody watches: that is ended, and the step has died.
		one=''
		{ read -r one two three <"steps/$step/pid"; } 2>/dev/null
		same_process "$one" "$two" "$three" || reap "steps/$step"
		;;
	esac
	exec 9>&-
	if [ ! -e "steps/$step/rc" ] && [ "$patience" != 0 ]; then
		# The step's process holds this lock for as long as it lives.
		exec 8<"steps/$step/lock"
		flock -s -w "$patience" 8
		exec 8<&-
	fi
	asked=$step
	sight
}

# Puts the step on record and starts its process. Nothing has run before its pid is written, and until then the process
# holds the node's lock (descriptor 9): a step directory without one was never begun and may be made anew.
begin_step() {
	at=steps/$step
	umask 077
	[ ! -e "$at" ] || rm -rf -- "$at"
	directories=$at scripts=''
	for role in $roles; do directories="$directories $at/secrets/$role" scripts="$scripts $at/$role"; done
	# shellcheck disable=SC2086 # plain words
	mkdir -p -- $directories 2>/dev/null || {
		rm -rf -- "$at"
		fail_write "the step's directory"
	}
	# shellcheck disable=SC2086 # plain words
	{
		payload && { [ -z "$scripts" ] || chmod 700 -- $scripts; } &&
			printf '%s' "$agent_text" >"$at/agent" && printf '' >"$at/lock"
	} 2>/dev/null || {
		rm -rf -- "$at"
		fail_write "the step's files"
	}
	exec 8<"$at/lock"
	flock 8
	# Started from the foreground: a shell makes what it starts with `&` ignore SIGINT, and the service would inherit that.
	# shellcheck disable=SC2016 # expanded by the shell that is started
	setsid -f sh -c '. "./steps/$1/agent" && step_main "$1"' sh "$step" </dev/null >>"$at/log" 2>&1 || {
		rm -rf -- "$at"
		fail 'start a process for the step' 'setsid failed'
	}
	exec 8<&-
	umask 022
}

# put FILE TEXT: what `payload` is made of. TEXT is in printf's %b notation, which carries any byte.
put() { printf '%b' "$2" >"steps/$step/$1"; }

call_adopt() {
	open_node
	check_fence
	printf 'end\n'
}

# Is the build there? First half of a delivery over SSH, which sends it only when it is not.
call_look() {
	open_node
	check_fence
	[ ! -d "artifacts/$release" ] || printf 'present\n'
	printf 'end\n'
}

# Brings a build into artifacts/, complete or not at all.
call_deliver() {
	open_node
	check_fence
	exec 9>&-
	mkdir -p artifacts 2>/dev/null || fail_write 'the artifacts directory'
	{ printf '' >>artifacts/.lock; } 2>/dev/null || fail_write 'the lock of the artifacts'
	exec 9>>artifacts/.lock
	# Two drivers may send the same build; the second waits and finds it there.
	flock -w 600 9 || fail 'take the lock of the artifacts' 'another delivery has held it for 10 min'
	if [ ! -d "artifacts/$release" ]; then
		new=artifacts/$release.new
		rm -rf -- "$new"
		mkdir -- "$new" 2>/dev/null || fail_write 'the artifact'
		"bring_by_$call"
		{ sync -f "$new" && mv -T -- "$new" "artifacts/$release"; } || fail_write 'the artifact'
	fi
	printf 'end\n'
}

bring_by_copy() {
	# Shared blocks where the filesystem can, else hard links (a prepared build is never changed), else bytes.
	cp -a --reflink=always -- "$source/." "$new" 2>/dev/null ||
		{ rm -rf -- "$new" && cp -al -- "$source" "$new"; } 2>/dev/null ||
		{ rm -rf -- "$new" && cp -a -- "$source" "$new"; } 2>/dev/null || {
		rm -rf -- "$new"
		[ -r "$source" ] || fail 'copy the artifact' "cannot read $source"
		fail_write 'the artifact'
	}
}

bring_by_receive() {
	# The sum is of what came, all of it, also of what tar does not read.
	mkfifo "$new.sum" || fail_write 'the artifact'
	sha256sum <"$new.sum" >"$new.got" &
	tee "$new.sum" <&3 | (
		tar -x -o -f - -C "$new" 2>"$new.why"
		unpacked=$?
		cat >/dev/null
		exit $unpacked
	)
	unpacked=$?
	wait
	got=''
	read -r got _ <"$new.got"
	why=''
	read -r why <"$new.why"
	rm -f -- "$new.sum" "$new.got" "$new.why"
	[ "$got" = "$sum" ] || {
		rm -rf -- "$new"
		fail 'receive the artifact' "what came is not what was sent (sha256 $got, not $sum)"
	}
	[ $unpacked -eq 0 ] || {
		rm -rf -- "$new"
		fail 'unpack the artifact' "$why"
	}
}

call_destroy() {
	if [ -e "$dir" ]; then
		open_node
		check_fence
		! look_service || fail 'delete the node directory' "its service still runs (pid $service_pid); stop it first"
		# A step that has ended holds its lock a moment longer than its end is on record.
		busy='' moment=0
		{ read -r busy <.busy; } 2>/dev/null
		[ -n "$busy" ] && [ ! -e "steps/$busy/rc" ] || moment=5
		{ [ ! -e .busy ] || flock -w $moment .busy true; } || fail 'delete the node directory' 'a step still runs'
		cd / || exit 1
		rm -rf -- "$node" 2>/dev/null || fail 'delete the node directory' "rm -r $node failed"
	fi
	printf 'end\n'
}

# ------------------------------------------------------------------------------------------------- a step's own process

note() { printf 'stagegate: %s\n' "$*" >>"$at/log"; }

note_survivors() {
	# shellcheck disable=SC2086 # a list of words
	note 'still alive after being killed:' $strays
}

# journal WORDS…: one line, stamped. The stamp is left in $now, as seconds in $stamp_s, and since boot in $stamp_uptime.
journal() {
	now=$(date -u '+%s %Y-%m-%dT%H:%M:%S.%3NZ')
	look_uptime
	stamp_s=${now% *} stamp_uptime=$uptime now=${now#* }
	printf '%s %s\n' "$now" "$*" >>journal
}

# step_main ID: runs in a session of its own, with the step's lock on descriptor 8 and the node's on 9.
step_main() {
	id=$1 at=steps/$1 node=$PWD
	umask 077
	read -r me _ </proc/self/stat
	look_process "$me"
	read -r boot </proc/sys/kernel/random/boot_id
	printf '%s %s %s\n' "$me" "$started" "$boot" >"$at/pid" || exit 1
	exec 9>&-
	# The mark of this run: the node's directory does not tell two machines' /proc apart, a process's identity does.
	mark=$id/$me.$started
	# shellcheck source=/dev/null
	. "./$at/request"

	# Steps of a node run one at a time, in the order of asking.
	exec 7>>.busy
	flock 7
	before=''
	{ read -r before <.busy; } 2>/dev/null
	if [ -n "$before" ] && [ -d "steps/$before" ] && [ ! -e "steps/$before/rc" ]; then
		reap "steps/$before"
	fi
	rc=0
	if is_done; then
		journal "$id $action $release skip"
		note 'nothing to do: it is so already'
	elif reserve && printf '%s\n' "$id" >.busy && journal "$id $action $release start"; then
		printf '%s\n' "$now" >"$at/started"
		"do_$work" || rc=$?
		give_reserve_back
		journal "$id $action $release end rc=$rc"
		printf '%s\n' "$now" >"$at/finished"
	else
		rc=1
		give_reserve_back
		note 'not begun: no space to record it (the disk is full or read-only)'
	fi
	rm -rf -- "$at/secrets" "$at/agent" "$at/reserve" "$at/log.end" "$at"/out.*
	{
		printf '%s\n' "$rc"
		[ ! -s "$at/log" ] || tail -c 4096 "$at/log"
	} >"$at/rc.new" && sync "$at/rc.new" journal && mv -f "$at/rc.new" "$at/rc"
}

reserve() { { printf "%${reserve_bytes}s" '' >"$at/reserve"; } 2>/dev/null; }
give_reserve_back() { printf '' >"$at/reserve"; }

# Is there nothing left to do? Such a step is not counted as run.
is_done() {
	case $work in
	setup) [ -e .set-up ] ;;
	install) [ -e "releases/$release/.complete" ] ;;
	activate) look_current && [ "$current" = "$release" ] ;;
	start) look_service ;;
	stop) [ -n "$pid_file" ] && ! look_service ;;
	*) false ;;
	esac
}

do_script() { run_script script; }

do_setup() {
	run_script script || return
	mark_done .set-up
}

do_install() {
	rm -rf -- "releases/$release"
	(umask 022 && mkdir -p -- "releases/$release") || return
	run_script script
	ended=$?
	if [ $ended -eq 0 ]; then
		# What is called complete must be so after a power cut too.
		sync -f "releases/$release" && mark_done "releases/$release/.complete" && return 0
		note 'the release could not be marked complete (the disk is full or read-only)'
		ended=1
	fi
	rm -rf -- "releases/$release"
	return $ended
}

# mark_done FILE
mark_done() { printf '%s\n' "$id" >"$1.new" && sync "$1.new" && mv -f "$1.new" "$1"; }

do_activate() {
	[ -e "releases/$release/.complete" ] || {
		note "release $release is not complete on this node; install it first"
		return 1
	}
	ln -sfn "releases/$release" current.new && mv -fT current.new current && sync .
}

do_restart() {
	stop_service && start_service
}

do_start() { start_service; }

do_stop() { stop_service; }

do_prune() {
	look_current
	look_service
	for one in releases/* artifacts/*; do
		[ -d "$one" ] || continue
		case " $keep $current $service_release " in *" ${one#*/} "*) continue ;; esac
		rm -f -- "$one/.complete" && rm -rf -- "$one" || return
	done
	# Steps are remembered for ever, so that none runs twice, but only the last ones with their scripts and logs.
	# shellcheck disable=SC2012 # step ids are plain words
	ls -t steps | tail -n +101 | while read -r old; do
		[ ! -e "steps/$old/rc" ] || for file in "steps/$old"/*; do
			[ "$file" = "steps/$old/rc" ] || rm -rf -- "$file"
		done
	done
}

# run_script ROLE: runs the step's file of that name under its deadline, its output into the log, and answers its exit status;
# 124 when the deadline passed. Ends whatever it leaves behind, unless it was to leave a service.
run_script() {
	role=$1
	eval "deadline=\$deadline_$role deadline_cs=\$deadline_cs_$role"
	look_current
	case $work in
	install) place=$node/releases/$release ;;
	*) place=${current:+$node/releases/$current} ;;
	esac
	printf '%s\n' "$mark" >"$at/mark"
	# A step's second script finds what the first one left of it; stopped is no place to give up for want of space.
	[ -s "$at/reserve" ] || reserve
	log_before=0
	[ ! -s "$at/log" ] || log_before=$(stat -c %s "$at/log")
	mkfifo "$at/out.$role" || return 1
	# Open for both, so that no side can wait for the other to come.
	exec 6<>"$at/out.$role"
	# In full from the start (the limit makes tee's further writes fail, which it survives) and, held in memory, the end.
	{
		ulimit -f $((log_bytes / 512))
		trap '' XFSZ
		exec tee -a "$at/log" 2>/dev/null
	} <"$at/out.$role" 6>&- 7>&- 8<&- | tail -c $log_bytes >"$at/log.end" 6>&- 7>&- 8<&- &
	reader=$!
	look_uptime
	passes=$((uptime + deadline_cs))
	(
		exec 7>&- 8<&-
		read -r me _ </proc/self/stat
		look_process "$me"
		printf '%s %s %s\n' "$me" "$started" "$boot" >"$at/group"
		umask 022
		set -- PATH="$PATH" HOME="${HOME-/}" LANG=C.UTF-8 TZ=UTC STAGEGATE_NODE_DIR="$node" \
			STAGEGATE_RELEASE_DIR="$place" STAGEGATE_SECRETS_DIR="$node/$at/secrets/$role" \
			STAGEGATE_DEADLINE_S="$deadline" STAGEGATE_STEP="$mark"
		[ "$work" != install ] || set -- "$@" STAGEGATE_ARTIFACT="$node/artifacts/$release"
		# Read by the shell that becomes the script: an argument would stand in the process list.
		more=./$at/secrets/$role.environment
		# shellcheck disable=SC2016 # expanded by the shell that is started
		[ ! -e "$more" ] || set -- "$@" sh -c '. "$1" && shift && exec "$@"' sh "$more"
		# `timeout` leads a process group of its own, with what it runs in it.
		exec env -i "$@" timeout -k "$grace" "$deadline" "./$at/$role" </dev/null >"$at/out.$role" 2>&1 6>&-
	)
	ended=$? survive=0
	look_uptime
	# `timeout` answers 137 where it had to use KILL.
	[ $ended -ne 137 ] || [ "$uptime" -lt "$passes" ] || ended=124
	# Room for the end of its output, where it has filled the disk.
	give_reserve_back
	if [ "$role" = start ] && [ $ended -eq 0 ]; then
		exec 6>&-
	else
		read -r run_group _ <"$at/group"
		kill -s KILL -- "-$run_group" 2>/dev/null
		exec 6>&-
		sweep "$mark"
		survive=$?
	fi
	printf '' >"$at/group"
	for secret in "$at/secrets/$role"/* "$at/secrets/$role"/.[!.]* "$at/secrets/$role.environment"; do
		[ ! -e "$secret" ] || {
			rm -rf -- "$at/secrets/$role" "$at/secrets/$role.environment"
			break
		}
	done
	# All output is in when its last writer is gone; a service that kept the script's output open never closes it.
	tries=0
	while look_process "$reader" && [ $tries -lt 18 ]; do nap; done
	complete_log
	[ $survive -eq 0 ] || note_survivors
	if [ $ended -eq 124 ]; then
		note "$action: the deadline of $deadline s passed; its process group was killed"
	elif [ $ended -ne 0 ]; then
		note "$action: the $role script ended with $ended"
	fi
	return $ended
}

# Puts into the log what it could not take while the script ran: it was at its bound, or the disk was full.
complete_log() {
	[ -s "$at/log.end" ] || return 0
	# shellcheck disable=SC2046 # two numbers
	set -- $(stat -c %s "$at/log" "$at/log.end")
	if [ "$2" -ge $log_bytes ]; then
		printf '\n' >>"$at/log"
		note "a long output; its last $log_bytes bytes follow"
		cat "$at/log.end" >>"$at/log"
		printf '\n' >>"$at/log"
	elif [ $(($1 - log_before)) -ne "$2" ]; then
		truncate -s "$log_before" "$at/log"
		cat "$at/log.end" >>"$at/log"
	fi
}

start_service() {
	look_current
	# A component that has builds has a current one; one that never had any starts without.
	[ -n "$current" ] || [ ! -e releases ] || {
		note 'nothing is activated: current points to no release'
		return 1
	}
	await_burial
	run_script start || return
	why=''
	if [ -z "$pid_file" ]; then
		:
	elif ! look_service; then
		why="start ended with 0, but $pid_file names no living process"
	elif ! record_service; then
		why='the service could not be recorded (the disk is full or read-only)'
	fi
	if [ -n "$why" ]; then
		note "$why"
		sweep "$mark" || note_survivors
		return 1
	fi
	# A service that is wanted is no stray, whatever becomes of this step.
	printf '' >"$at/mark"
}

record_service() {
	look_uptime
	printf '%s %s %s %s %s\n' "${current:--}" "$service_pid" "$service_ticks" "$boot" \
		$((stamp_s + (uptime - stamp_uptime) / 100)) >running.new && mv -f running.new running
}

# Waits until a dead process that the pid file still names is out of the process table. Until its parent has taken note of its
# end `kill -0` finds it there, and a start script that asks so (PostgreSQL itself does) would take it for a running service.
# Mostly no wait at all; where init is slow or never does it (some containers), a few seconds.
await_burial() {
	[ -n "$pid_file" ] && [ -s "$pid_file" ] || return 0
	found=''
	{ read -r found _ <"$pid_file"; } 2>/dev/null
	case $found in '' | *[!0-9]*) return 0 ;; esac
	tries=0
	while ! look_process "$found" && [ -n "$stat_text" ] && [ $tries -lt 60 ]; do nap; done
}

# Stops the service gracefully; what still lives when the stop script's deadline has passed is killed.
stop_service() {
	if [ -z "$pid_file" ]; then
		run_script stop
		return
	fi
	look_service || {
		note 'there is no service to stop'
		return 0
	}
	main="$service_pid $service_ticks" main_group=$service_group members=''
	processes_below "$service_pid"
	for each in $below; do
		! look_process "$each" || members="$members$each $started
"
	done
	look_uptime
	give_up=$((uptime + deadline_cs_stop))
	run_script stop
	stopped=$?
	# A stop script that ended badly does not become better by waiting.
	[ $stopped -eq 0 ] || give_up=0
	tries=0
	while living_members; do
		look_uptime
		[ "$uptime" -lt "$give_up" ] || break
		nap
	done
	living_members || return 0
	note "still alive after the stop script (exit $stopped) and its deadline of $deadline_stop s; killed:$living"
	# shellcheck disable=SC2086 # a list of pids
	kill -s KILL $living 2>/dev/null
	# Its group is ours to kill only while its leader is the service we know, or was the start script of ours.
	# shellcheck disable=SC2086 # pid and ticks
	case " $living " in *" ${main% *} "*) kill -s KILL -- "-$main_group" 2>/dev/null ;; esac
	tries=0
	while living_members; do
		[ $tries -lt 60 ] || {
			note "still alive after being killed:$living"
			return 1
		}
		nap
	done
}

# Sets $living to those of $members that are alive; false when none is.
living_members() {
	living=''
	while read -r each ticks; do
		[ -n "$each" ] && look_process "$each" && [ "$started" = "$ticks" ] && living="$living $each"
	done <<-LIST
		$members
	LIST
	[ -n "$living" ]
}
