// Package controller has the two controllers of taskflow.
//
// The order controller (order.go) releases the steps of a Pod: it watches containers end and writes the Pod's
// annotations. It needs no Task, only the Pod. The Task controller (task.go) makes the Pod of a Task and
// writes what became of it into the Task's status. Both see a Pod through the same pure function, observe
// (observe.go); what a Task's status should be is another (status.go), and what its Pod is a third (pod.go).
package controller
