#!/usr/bin/env bash
# The host's side of one member of an array: starts its tasks, passes signals on to every rank, and decides by
# what they ended with whether the member comes back. Runs in the submission's folder, outside any container.
#
#   job.sh [--requeue] [--local TASKS] [--srun OPTION]... -- COMMAND...
#
# COMMAND is what each task runs; with --local this machine's processes instead of srun's.
# What becomes of an attempt, in this order (a rank leaves its exit code in a file, srun says only the highest):
#   77 somewhere      a later incarnation has taken over: ends with 77
#   2 somewhere       the request was wrong: ends with 2
#   stacks dumped     hung: comes back
#   1 somewhere       the work failed: ends with 1
#   75 somewhere      stopped when asked to, everything saved: comes back, however often
#   no code, or 76    killed, launched in vain, or left by one that was: comes back
# Hung, killed or too slow to stop RETRIES times in a row without a newer checkpoint, it ends with 1.
set -u
RETRIES=3

requeue=false local_tasks=0 srun_options=()
while [ "$1" != -- ]; do
    case $1 in
        --requeue) requeue=true; shift ;;
        --local) local_tasks=$2; shift 2 ;;
        --srun) srun_options+=("$2"); shift 2 ;;
        *) echo "job.sh: unknown argument '$1'" >&2; exit 2 ;;
    esac
done
shift

say() { printf '%s %s: %s\n' "$(now)" "${XR2CT_JOB-job.sh}" "$*"; }
now() { TZ=UTC printf '%(%FT%TZ)T' -1; }  # bash's own: a child might be ended with the job

# resolve VARIABLE FOLDER: export the folder's own path. Not by $(…), which would cut a line break at its end.
resolve() {
    cd -P -- "$2" || exit 2
    export "$1=$PWD"
    cd "$submission" || exit 2
}

prepare() {
    submission=$PWD
    if [ "$local_tasks" -gt 0 ]; then
        member=$XR2CT_MEMBER tasks=$local_tasks restart=0
        export XR2CT_JOB=$$
    else
        member=$SLURM_ARRAY_TASK_ID tasks=$SLURM_NTASKS restart=${SLURM_RESTART_COUNT:-0}
        export XR2CT_JOB=${SLURM_ARRAY_JOB_ID}_$member
        # srun takes no --cpus-per-task from its job since Slurm 22.05.
        [ -n "${SLURM_CPUS_PER_TASK-}" ] && export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
    fi
    resolve XR2CT_WORKDIR workdir
    resolve XR2CT_SLURM "members/$member/log"
    resolve XR2CT_START "members/$member"
    resolve code "members/$member/code"
    export -n code
    # shellcheck source=/dev/null
    . "members/$member/environment.sh"
    # The code of the run comes before any other, the folder a task starts in included. Once: a job that submits
    # its successor hands its environment on, and a chain of them goes on for weeks.
    case ${PYTHONPATH-} in
        "$code" | "$code":*) ;;
        *) export PYTHONPATH=$code${PYTHONPATH:+:$PYTHONPATH} ;;
    esac
    export PYTHONSAFEPATH=1
    ln -sfn "members/$member/call.pkl" "${XR2CT_JOB}_submitted.pkl"
    node=${SLURMD_NODENAME:-$(uname -n)}
}

# Locally, members that share a turn run one after another.
take_turn() {
    exec {turn}>"turn-$((member % ${XR2CT_PARALLEL:-1}))"
    flock "$turn" || exit 143
}

told='' interrupted=false running='' timer='' late=false
# srun answers SIGTERM by killing its tasks, so the tasks are told by USR1 whatever the host was told by.
# shellcheck disable=SC2329  # by a trap
pass_on() {
    told=${told:-$1} interrupted=true
    say "$1 received"
    [ -n "$running" ] && tell_tasks
    # USR1 means that the time is nearly up, and a job that runs into its limit does not come back.
    if [ "$1" = USR1 ] && [ -z "$timer" ] && [ "$local_tasks" -eq 0 ]; then
        ( trap 'kill $!; exit' TERM; sleep "$((XR2CT_LEAD_S * 9 / 10))" & wait $!; kill -s ALRM $$ ) &
        timer=$!
    fi
}
# shellcheck disable=SC2329
stop_waiting() {
    late=true interrupted=true
    say 'the ranks have not stopped within 9/10 of signal_lead_s; ended without a checkpoint'
    [ -n "$running" ] && kill -s TERM "$running"
}
tell_tasks() {
    if [ "$local_tasks" -gt 0 ]; then kill -s TERM "$running"; else kill -s USR1 "$running"; fi
}

attempt() {
    export XR2CT_RESTART=$restart XR2CT_RENDEZVOUS=$XR2CT_SLURM/rendezvous-$XR2CT_JOB-$restart
    exits=$XR2CT_SLURM/exit-$XR2CT_JOB-$restart-rank-
    rm -f -- "$XR2CT_RENDEZVOUS" "$exits"* "${XR2CT_JOB}"_*_result.pkl*
    say "attempt $restart on ${SLURM_JOB_NODELIST:-$node}, $tasks tasks"
    cd "members/$member" || exit 2
    # Tasks start here, whatever the user's folders are called, and name the submission's folder by the way to it.
    local here=/proc/self/cwd/../..
    if [ "$local_tasks" -gt 0 ]; then
        start_locally "$@" "$here"
    else
        srun --ntasks="$tasks" --kill-on-bad-exit=1 --unbuffered --input=none --export=ALL --mpi=none \
            --open-mode=append --output="log/$XR2CT_JOB-rank-%t.out" "${srun_options[@]}" "$@" "$here" &
        running=$!
    fi
    cd "$submission" || exit 2
    [ -n "$told" ] && tell_tasks
    while :; do
        interrupted=false
        wait "$running"
        ended=$?
        $interrupted || break
    done
    running=''
    [ -n "$timer" ] && kill "$timer" 2>/dev/null
}

# submitit's own controller starts one process a rank, and names their logs its own way.
start_locally() {
    local rank
    for ((rank = 0; rank < tasks; rank++)); do
        : >>"log/$XR2CT_JOB-rank-$rank.out"
        ln -sfn "members/$member/log/$XR2CT_JOB-rank-$rank.out" "$submission/${XR2CT_JOB}_${rank}_log.out"
    done
    SUBMITIT_LOCAL_COMMAND="${*@Q}" SUBMITIT_LOCAL_NTASKS=$tasks SUBMITIT_LOCAL_WITH_SHELL=1 \
        SUBMITIT_LOCAL_TIMEOUT_S=$XR2CT_LIMIT_S SUBMITIT_LOCAL_SIGNAL_DELAY_S=$XR2CT_LEAD_S \
        SUBMITIT_LOCAL_NODEID=0 SUBMITIT_LOCAL_JOB_NUM_NODES=1 SUBMITIT_STDERR_TO_STDOUT=1 \
        "$XR2CT_PYTHON" -m submitit.local._local /proc/self/cwd/../.. {turn}>&- &
    running=$!
}

# What the ranks ended with → why, and the exit code of the job if the member does not come back.
judge() {
    local codes=' ' rank told_by_rank hung=false file
    for ((rank = 0; rank < tasks; rank++)); do
        told_by_rank=none
        [ -s "$exits$rank" ] && read -r told_by_rank <"$exits$rank"
        codes+="$told_by_rank "
    done
    for file in "$XR2CT_SLURM/stacks-$XR2CT_JOB-$restart-rank-"*; do
        [ -s "$file" ] && hung=true
    done
    rm -f -- "$exits"*
    case $codes in
        *' 77 '*) why=superseded code=77 ;;
        *' 2 '*) why='wrong request' code=2 ;;
        *) if $hung; then why=hung code=1
           elif [[ $codes == *' 1 '* ]]; then why='work failed' code=1
           elif [[ $codes == *' 75 '* ]]; then why=stopped code=75
           elif [[ $codes == *none* || $codes == *' 76 '* ]]; then why=killed code=1
           else why='done' code=0; fi ;;
    esac
    [ "$why" = killed ] && [[ $codes != *[0-9]* ]] && [ "$ended" -gt 0 ] && [ "$ended" -lt 128 ] && why='not launched'
    if [ "$why" = killed ] || [ "$why" = 'not launched' ]; then
        # Before a rank listens it dies of the signal that asks it to stop: that is no failure.
        if $late; then why='too slow to stop'
        elif [ -n "$told" ]; then why=stopped code=75; fi
    fi
    say "ranks ended with$codes(srun or controller: $ended): $why"
}

# Name of the run's newest whole checkpoint; empty where there is none.
newest_checkpoint() {
    local whole newest=''
    for whole in "$XR2CT_SLURM"/../checkpoints/step-*/COMPLETE; do
        [ -f "$whole" ] || continue
        whole=${whole%/COMPLETE}
        newest=${whole##*/}
    done
    printf '%s' "$newest"
}

# How often in a row this job ended otherwise than stopped with the checkpoint it has now.
vain_attempts() {
    local count=0 line
    [ -f "$XR2CT_SLURM/stops.jsonl" ] || { echo 0; return; }
    while read -r line; do
        case $line in
            *"\"job\": \"$XR2CT_JOB\""*"\"why\": \"stopped\""*) count=0 ;;
            *"\"job\": \"$XR2CT_JOB\""*"\"checkpoint\": \"$checkpoint\""*) count=$((count + 1)) ;;
            *"\"job\": \"$XR2CT_JOB\""*) count=0 ;;
        esac
    done <"$XR2CT_SLURM/stops.jsonl"
    echo "$count"
}

# Attempts are counted, and ranks leave their codes, in files: on a full disk neither would be known.
can_write() {
    local probe=$XR2CT_SLURM/.probe-$XR2CT_JOB done=false
    head -c 8192 /dev/zero 2>/dev/null >"$probe" && done=true
    rm -f -- "$probe"
    $done
}

# Whether the member should come back, and if so bring it back → requeued.
follow_up() {
    checkpoint=$(newest_checkpoint)
    requeued=false
    case $why in
        stopped) ;;
        hung | killed | 'not launched' | 'too slow to stop')
            if ! can_write; then
                say "$why, and nothing can be written to $XR2CT_SLURM: it would come back for ever; given up"
                return
            fi
            local vain; vain=$(vain_attempts)
            if [ "$vain" -ge "$RETRIES" ]; then
                say "$why $((vain + 1)) times in a row without a checkpoint newer than ${checkpoint:-none}: given up"
                return
            fi ;;
        *) return ;;
    esac
    $requeue || return
    if [ "$local_tasks" -gt 0 ]; then
        # Nobody but the user, or the machine going down, tells this script itself to stop.
        [ -z "$told" ] && requeued=true
    else
        bring_back
    fi
}

# Slurm itself brings a preempted job back, and a cancelled one must not come back: only what still runs, and is
# still this attempt, is requeued. The member, never the array.
bring_back() {
    local pause known
    for pause in 0 2 5 15 30 60; do
        sleep "$pause"
        if known=$(scontrol --oneliner show job "$XR2CT_JOB"); then
            case " $known " in
                *" JobState=RUNNING "*) ;;
                *) say 'Slurm is ending this job itself; not requeued here'; return ;;
            esac
            case " $known " in
                *" Restarts=$restart "*) ;;
                *) say 'a later attempt is under way; not requeued here'; return ;;
            esac
            scontrol requeue "$XR2CT_JOB" && { requeued=true; say requeued; return; }
        fi
    done
    say "cannot be requeued: slurmctld does not answer; \`xr2ct resubmit\` brings it back"
}

record() {
    printf '{"time": "%s", "job": "%s", "restart": %d, "node": "%s", "exit": %d, "why": "%s", "signal": "%s", "checkpoint": "%s", "requeued": %s}\n' \
        "$(now)" "$XR2CT_JOB" "$restart" "$node" "$code" "$why" "$told" "$checkpoint" "$requeued" \
        >>"$XR2CT_SLURM/stops.jsonl"
}

trap 'pass_on USR1' USR1
trap 'pass_on USR2' USR2
trap 'pass_on TERM' TERM
trap stop_waiting ALRM
prepare
[ "$local_tasks" -gt 0 ] && take_turn
while :; do
    attempt "$@"
    judge
    follow_up
    record
    if [ "$local_tasks" -eq 0 ] || ! $requeued; then break; fi
    restart=$((restart + 1))
done
exit "$code"
