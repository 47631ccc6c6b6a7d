// Package webhook puts the agent before the command of each step of a Pod, when the Pod is created.
//
// Handler decodes the request and answers it. A Pod that the Task controller has made comes with all that it needs; one of a
// user's is brought there first: a draft takes what it needs from the Task that it names (task.go, merge.go), settles which containers
// are steps and finds out their commands (pod.go). What can't be made sequential is refused (validate.go).
//
// Then plan decides, without I/O and without a clock, what is to be added to the Pod, as a JSON patch written by hand
// (internal/jsonpatch). It is not the difference between two marshalled Pods: the API types that this program was built with
// may know fewer fields than the cluster, and what they don't know must come through untouched.
package webhook
