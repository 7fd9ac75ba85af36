# shellcheck shell=sh
# What a step's own process is made of, beside looking.sh: it begins in `step_main`.
# shellcheck disable=SC2034,SC2154 # the request's variables are assigned by its file, some are read by looking.sh

# A log keeps this much from its beginning, and as much from its end: 64 KiB are about 800 lines, more than a person reads.
log_bytes=65536
# Kept free while a step runs, so that a disk that the step fills has room for the step's own end.
reserve_bytes=65536

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
	if [ -z "${has_turn-}" ]; then
		exec 7>>.busy
		flock 7
	fi
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
	stop) [ -n "$pid_file" ] && ! look_service && ! look_remains ;;
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
		# A service ends gracefully, so what carries a mark is swept when its time is up: see stop_service.
		if [ "$role" != stop ] || [ -z "$pid_file" ]; then
			sweep "$mark"
			survive=$?
		fi
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
	# A restart has ended them with the service.
	[ "$work" = restart ] || end_remains || return
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
	printf '%s %s %s %s %s %s\n' "${current:--}" "$service_pid" "$service_ticks" "$boot" \
		$((stamp_s + (uptime - stamp_uptime) / 100)) "$mark" >running.new && mv -f running.new running
}

# end_marked GIVE_UP: asks what still carries the service's mark to end, and kills what has not by then. What left the process
# tree of a service may be in the middle of a call, as the service was. With it goes what a stop script has left.
end_marked() {
	look_marked "$mark" "$service_mark"
	[ -n "$marked" ] || return 0
	look_marked "$service_mark"
	# shellcheck disable=SC2086 # a list of pids
	[ -z "$marked" ] || kill -s TERM $marked 2>/dev/null
	look_uptime
	tries=0 wait_until=$((uptime + grace * 100))
	[ "$wait_until" -gt "$1" ] || wait_until=$1
	while [ -n "$marked" ] && [ "$uptime" -lt "$wait_until" ]; do
		nap
		look_uptime
		look_marked "$service_mark"
	done
	sweep "$mark" "$service_mark" && return
	note_survivors
	return 1
}

# Ends what a service left whose main process is gone: there is nobody left to ask for a graceful end, and its processes hold
# the port that the next one needs.
end_remains() {
	look_remains || return 0
	# shellcheck disable=SC2086 # a list of words
	note "the service is gone, but processes of it live on; ending them:" $remains
	look_uptime
	end_marked $((uptime + ${deadline_cs_stop:-$((grace * 100))}))
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
		end_remains
		return
	}
	found=''
	{ read -r found _ <"$pid_file"; } 2>/dev/null
	[ "$found" = "$service_pid" ] || {
		note "$pid_file does not name the service; it is written anew for the stop script: $service_pid"
		{ printf '%s\n' "$service_pid" >"$pid_file"; } 2>/dev/null
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
	if living_members; then
		note "still alive after the stop script (exit $stopped) and its deadline of $deadline_stop s; killed:$living"
		# shellcheck disable=SC2086 # a list of pids
		kill -s KILL $living 2>/dev/null
		# Its group is ours to kill only while its leader is the service we know, or was the start script of ours.
		# shellcheck disable=SC2086 # pid and ticks
		case " $living " in *" ${main% *} "*) kill -s KILL -- "-$main_group" 2>/dev/null ;; esac
		tries=0
		while living_members && [ $tries -lt 60 ]; do nap; done
	fi
	end_marked "$give_up" || return
	! living_members || {
		note "still alive after being killed:$living"
		return 1
	}
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

# --- what dead steps have left

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

# sweep MARK…: kills every process that carries the mark of one of these steps, wherever it has forked to, and waits until
# none is left: one that forks while we look leaves a child, and a killed one ends when it is next scheduled. False when some
# live on, named by $strays.
sweep() {
	tries=0
	while :; do
		look_marked "$@"
		strays=$marked
		[ -n "$strays" ] || return 0
		# Seconds; a process that outlives KILL so long is stuck in the kernel (a dead disk, a dead NFS server).
		[ $tries -lt 60 ] || return 1
		# shellcheck disable=SC2086 # a list of pids
		kill -s KILL $strays 2>/dev/null
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
