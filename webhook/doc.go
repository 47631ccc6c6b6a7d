// Package webhook puts the agent before the command of each step of a Pod, when the Pod is created.
//
// Handler decodes the request and answers it; plan decides, without I/O and without a clock, what is to be
// added to the Pod, as a JSON patch written by hand (internal/jsonpatch). It is not the difference between two
// marshalled Pods: the API types that this program was built with may know fewer fields than the cluster,
// and what they don't know must come through untouched.
package webhook
