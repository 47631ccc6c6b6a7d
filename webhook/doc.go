// Package webhook answers the API server about new Pods, so that the agent gates each step of a sequential Pod, and about Tasks.
//
// Handler decodes the request, reads the Task that the Pod names and the commands of its images, and answers with what package podspec decides:
// a patch, or the reason of a rejection. TaskHandler rejects Tasks whose steps can't work together. Bounded limits the size and the number of the requests. Nodes watches which delivery of the agent the
// cluster supports.
package webhook
