// Package sequence is the rule of taskflow: when a step may run.
//
// Three programs must agree on it. The agent of a step decides whether its gate opens, the order controller decides which steps to release,
// and the Task controller decides whether the sequence is over. Each knows something else: an agent reads the records that the agents of its
// predecessors left in the Pod, a controller reads container statuses, and both may see them late. So each of them states what it knows as
// one State per step, and asks this package.
//
// The rule, for a step that has not started. The first line that applies decides:
//
//	the sequence is halted                                 Skip
//	the order has reached the stage of the step            Run
//	a step whose turn had come ended the sequence          Skip
//	it has predecessors, and all of them passed            Run
//	otherwise                                              Wait
//
// So a step without predecessors waits for the order: the controller releases it once the containers beside the steps are ready.
//
// A step passed if it succeeded, if a condition kept it from running, or if it failed and its plan says Continue or FailAtEnd. It ended the
// sequence if it failed and its plan says Stop, if it was interrupted or skipped, or if its exit code finished the sequence. Both count only
// once the turn of the step has come, which means that all of its predecessors passed: a container can fail before its turn, because its image is
// missing, while an earlier step still runs.
//
// The rule for a final step:
//
//	the final steps are halted                             Skip
//	the order has reached the stage of the step            Run
//	it is the first, and all other steps passed, none of
//	which failed with FailAtEnd                            Run
//	the final step before it has ended by itself           Run
//	otherwise                                              Wait
//
// So after a failure or a cancel, the first final step waits for the order. The controller advances it once no other step runs and none will, and
// tells how they ended.
//
// The package has no I/O and no clock. The agent links it, so it uses the standard library alone, without fmt.
package sequence
