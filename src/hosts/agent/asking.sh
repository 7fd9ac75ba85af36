# shellcheck shell=sh
# The agent's calls that change a node or ask for a step; they need looking.sh, and `call_run` also step.sh. Each shows its
# fencing token first. `call_run` has besides its variables a function `payload` that writes the step's files, and in
# $agent_text what the step's process is made of, which outlives the call and its connection.
# shellcheck disable=SC2034,SC2154 # the request's variables are assigned by the caller; the rest is shared with looking.sh

# fail_write WHAT: ends the call after a write that did not go through, with the usual cause named.
fail_write() {
	fail "write $1" "the disk is full or read-only ($(($(stat -f -c '%a * %S' .))) bytes free)"
}

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
	! is_copy || disown_copied
	# shellcheck disable=SC3013 # likewise
	[ here -ef .lock ] || ln -sfn -- "$node/.lock" here || fail_write 'where the directory is'
}

# What a copy says of processes is forgotten before it is obeyed in anything, so that nothing here acts on its original's service
# and steps.
disown_copied() {
	[ -z "$pid_file" ] || rm -f -- "$pid_file"
	# A step that ended keeps how; one whose processes are another's is no step of this directory.
	for at in steps/*; do
		[ ! -d "$at" ] || [ -e "$at/rc" ] || rm -rf -- "$at"
	done
	rm -f running .busy || fail_write 'what the copy says of processes'
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
	printf 'end\n'
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
	# Milliseconds, and no script that could hang: a process of its own would cost more than the step. Were it cut off, the
	# next one finds what is left to do. The node's lock is held meanwhile, so it waits for nobody's step.
	if [ "$work" = activate ] && take_turn; then
		# As a process of its own: what it sets is none of the call's.
		(
			trap '' HUP PIPE
			has_turn=yes step_main "$step"
		) </dev/null >>"$at/log" 2>&1
		exec 7>&- 8<&-
		umask 022
		return
	fi
	# Started from the foreground: a shell makes what it starts with `&` ignore SIGINT, and the service would inherit that.
	# shellcheck disable=SC2016 # expanded by the shell that is started
	setsid -f sh -c '. "./steps/$1/agent" && step_main "$1"' sh "$step" </dev/null >>"$at/log" 2>&1 || {
		rm -rf -- "$at"
		fail 'start a process for the step' 'setsid failed'
	}
	exec 8<&-
	umask 022
}

# Takes the turn of the node's steps on descriptor 7, if it is nobody's. After one that died its successor has to clear up, in a
# process of its own.
take_turn() {
	exec 7>>.busy
	busy=''
	{ read -r busy <.busy; } 2>/dev/null
	if flock -n 7 && { [ -z "$busy" ] || [ -e "steps/$busy/rc" ]; }; then return; fi
	exec 7>&-
	return 1
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

call_copy() { deliver; }
call_receive() { deliver; }

# Brings a build into artifacts/, complete or not at all.
deliver() {
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
		! look_remains || fail 'delete the node directory' "processes of its service still run (pids$remains); stop it first"
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
