package main

// method explains the first table.
const method = "Each cell is the time from `create` to the Pod's `Succeeded`:" + ` the median of n rounds (least–greatest), or of one round if there is no n, and its ratio to the first row.
One round runs all shapes of a sequence after each other, in random order, each on a node without other Pods, and from a random moment. The kubelet looks at its
containers once a second, so the same sequence takes up to a second more or less.

`

// tried describes attempts to make hops and agents faster. The figures are from BenchmarkHandOff, measured side by side, five runs each.
const tried = `
### What was tried

The figures are from BenchmarkHandOff in [agent/handoff_bench_test.go](../agent/handoff_bench_test.go), which needs no kubelet. Agents and commands are processes of the machine. A figure is the
milliseconds from the end of a step to the end of the next one. Without any change it was 2.5 to 3.7 ms on the machine of these measurements.

| | ms | |
|---|---|---|
| close the inotify instance before the command starts | 10.6–13.2 | the close waits for an SRCU grace period of the kernel, so the instance stays open for the life of the step |
| no inotify: read the records every 10 ms | 8.5–9.6 | each agent that waits wakes 100 times a second, so agents use inotify, and poll (every 150 ms) only if there is none |
| sync the record to the disk before it is published | 4.1–5.0 | the agent publishes the record first, and syncs it before it ends |
| no garbage collector (GOGC=off) | 3.1–3.5 | no help |

**One thread**: Go code has one thread in the agent. Alone on the machine that makes no difference (2.6–3.7 ms). But on a node, a second thread waits for its turn at each wake-up of a hop, and a Pod without
requests gets its turn after the kubelet, the container runtime and the API server. Of 294 hops 4 took longer than 25 ms; with one thread it was 1 of 392 in the same
hour.

**Late hops** depend on what else the node does. ` + "`perf sched`" + ` shows a late hop as a wait for a CPU, mostly a single one, of an agent that was woken. When a container ends, containerd, its shim and
runc take a tenth of a second of CPU. With steps of 0.1 s both cores were 55 and 62% busy (two Pods), with 0.3 s 37 and 37%. Of 490 hops, measured by hand, 9 and 2 took longer than 25 ms. The
goal assumes an idle machine, so it applies to the steps of 0.3 s. The table also has the steps of 0.1 s.

**A pause before the end**: an agent whose record has released another step ends 20 ms later than it could. Its own end, and the runtime's work after it, would take the CPU from the start of the next command.
This was measured on a machine where a process takes long to start (its hypervisor keeps the page tables; the first access to a page takes 11 µs), with Pods of 31 steps of 0.3 s. The medians
of seven Pods without the pause were 7.7 to 14.3 ms (8.7 at the median), of three with it 5.9, 6.0 and 6.5. With steps that do nothing they were 17.4, 17.5 and 18.9 ms, and 10.9, 15.2 and 16.8. Leaving out the sync
of the record didn't help (9.7 to 12.2 ms). In Pods of 50 steps, as in ` + "`make bench`" + `, 9.5, 10.5 and 10.6 ms became 6.2 to 7.5 (four Pods). In the same run, 4.2 and 4.4 ms passed between two shells
in one container, without taskflow. So on that machine there is little room left below 5 ms.

**Work outside of the hop**: the rest of the agent's work also happens before or after the start of the next command. The agent publishes the record with four system calls. It writes the termination message, and
looks for a halt for the first time, after the next command has started. It reads the environment and PATH before the release. On the same machine, with Pods of 31 steps of 0.3 s, the medians of four Pods without
this were 5.8 to 6.9 ms (6.3 in the middle), of six with it 5.2 to 6.3 (5.8). By ` + "`perf`" + `, which costs time itself, the median parts of 24 hops were then: 1.3 ms from the end of the shell until its agent
knows, 0.4 until the record exists, 0.15 until the next agent is awake, 1.2 until it forks, 0.8 until the next shell is executed, and 2.1 until the shell writes something. A rehearsal of all that before
the release, with a record and a fork, didn't help (six Pods, 5.2 to 7.0 ms).

**Slower machines**: if processes start more slowly, this half of the report looks different. A whole run on 2026-11-27, on the machine of the last two paragraphs (` + "`echo`" + ` alone took 3.5 ms), met six
of its eleven goals and missed five. Of 1029 hops of steps of 0.3 s, p50 was 6.8 ms and p99 63.4 ms; shells in one container, without taskflow, took 4.2 and 19.8 ms. An agent took 9.8 ms from its exec to the command,
and 1.4 ms of CPU in 10 s of waiting. 1 × true took 1.166× the one container. It met all goals of the operator's half.

**Small files**: the agent reads the small files of the gate with three system calls each. Package os and its poller took nine, and 50 KiB more memory.
`
