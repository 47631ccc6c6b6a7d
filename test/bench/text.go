package main

// method says how to read the first table.
const method = "Each cell is the time from `create` to the Pod's `Succeeded`:" + ` the median of n rounds (least–greatest), of one where none is said, and its ratio to the first row.
All shapes of a sequence follow each other in one round, in an order of chance, each on a node without other Pods, and begin at a moment of chance: the kubelet looks at its
containers once a second, so the same sequence takes up to a second more or less.

`

// tried is what has been done about hops and agents. The figures are of BenchmarkHandOff, measured side by side, five runs each.
const tried = `
### What was tried

By BenchmarkHandOff in [agent/handoff_bench_test.go](../agent/handoff_bench_test.go), which needs no kubelet: agents and commands as processes of the machine, milliseconds from the
end of a step to the end of the next one; 2.5 to 3.7 as it was, on the machine where this was tried.

| | ms | |
|---|---|---|
| the inotify instance is closed before the command starts | 10.6–13.2 | the close waits for an SRCU grace period of the kernel: so it stays open for the life of the step |
| no inotify, the records are looked at every 10 ms | 8.5–9.6 | and each agent that waits wakes 100 times a second: inotify it is, and polling (every 150 ms) only where there is none |
| the record is synced to the disk before it is published | 4.1–5.0 | it is published first, and synced before the agent ends |
| no garbage collector (GOGC=off) | 3.1–3.5 | no help |

Go code has one thread in the agent. Alone on the machine that makes no difference (2.6–3.7 ms), but on a node a second one waits for its turn at each wake-up of a hop, and a Pod without
requests has its turn when the kubelet, the container runtime and the API server have had theirs: of 294 hops 4 took longer than 25 ms, and with one thread 1 of 392 in the same
hour.

How many do depends on what else the node is at. By ` + "`perf sched`" + `, a late hop is a wait for a CPU, mostly one, of an agent that has been woken. When a container ends, containerd, its shim and
runc take a tenth of a second of CPU: with steps of 0.1 s both cores were 55 and 62% busy (two Pods), with 0.3 s 37 and 37%. Of 490 hops by hand 9 and 2 took longer than 25 ms. So
the goal, which is one for an idle machine, is held against the steps of 0.3 s; those of 0.1 s are in the table, too.

So an agent whose record has released another step ends 20 ms later than it could: its own end, and what the runtime does behind it, would take the CPU from the start of the next command.
That was measured on a machine where a process takes long to start (its hypervisor keeps the page tables; a page that is touched first takes 11 µs), by Pods of 31 steps of 0.3 s: the medians
of seven Pods without it were 7.7 to 14.3 ms (8.7 at the median), of three with it 5.9, 6.0 and 6.5; of steps that do nothing, 17.4, 17.5 and 18.9 ms, and 10.9, 15.2 and 16.8. Not to sync the
record didn't help (9.7 to 12.2 ms). In Pods of 50 steps, as ` + "`make bench`" + ` has them, 9.5, 10.5 and 10.6 ms became 6.2 to 7.5 (four Pods); in the same run a shell took 4.2 and 4.4 ms from the end of one shell to the start
of the next, without taskflow, in one container: so on that machine there is little room left below 5 ms.

What else stood between two commands is out of the way of the second one's start, too: the record is published with four system calls; the termination message is left, and a halt is first
looked for, when the next command has started; the environment and PATH are gone through ahead of the release. On the same machine, Pods of 31 steps of 0.3 s: the medians of four Pods without
that were 5.8 to 6.9 ms (6.3 in the middle), of six with it 5.2 to 6.3 (5.8). By ` + "`perf`" + `, which costs time itself, the median parts of 24 hops were then: 1.3 ms from the end of the shell until its agent
knows, 0.4 until the record is there, 0.15 until the next agent is awake, 1.2 until it forks, 0.8 until the next shell is executed and 2.1 until that says something. To go through all that once ahead of
the release, with a record and a fork, was no help (six Pods, 5.2 to 7.0 ms).

Where processes start more slowly, this half of the report is another one. A whole run on 2026-11-27, on the machine of the last two paragraphs (` + "`echo`" + ` alone took 3.5 ms), met six
of its eleven and missed five: of 1029 hops of steps of 0.3 s p50 was 6.8 ms and p99 63.4 ms, where shells in one container, without taskflow, took 4.2 and 19.8 ms; an agent took 9.8 ms from its exec to the command,
and 1.4 ms of CPU in 10 s of waiting; 1 × true took 1.166× the one container. All goals of the operator's half were met there, too.

The small files of the gate are read with three system calls each, without package os and its poller, which took nine and 50 KiB of memory more.
`
