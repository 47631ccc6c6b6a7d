// Package controller has the two controllers of taskflow.
//
// The order controller (order.go) releases the steps of a Pod: it watches containers end, and writes the Pod's annotations. It needs no Task. The
// Task controller (task.go) creates the Pod of a Task, and writes the Task's status. Both read a Pod through one pure function, observe. What the
// next status is, and what happens to the Pod before it is written, is one pure decision table (situations.go).
package controller
