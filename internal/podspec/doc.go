// Package podspec builds Pods: the Pod of a Task (New), and the gated Pod that the webhook makes of a sequential one (Mutation).
//
// It is pure: it has no client, no I/O and no clock. Its callers pass what they read elsewhere, such as a Task and the commands of images. So the
// webhook, the Task controller and command-line tools can share it.
//
// What changes in a Pod is written as a JSON patch (internal/jsonpatch), one operation for each field. The patch is not the difference between two
// marshalled Pods: the API types that this program is built with may know fewer fields than the cluster, and unknown fields must survive.
package podspec
