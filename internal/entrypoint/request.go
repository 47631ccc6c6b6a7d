package entrypoint

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Request is a container whose command is asked for.
type Request struct {
	// Namespace of the Pod: PullSecrets are in it.
	Namespace string
	// Image as the container names it.
	Image string
	// PullPolicy of the container. Empty: Kubernetes' default, by the image's tag. Under Always the registry is asked each time.
	PullPolicy corev1.PullPolicy
	// PullSecrets are the names of the Pod's imagePullSecrets.
	PullSecrets []string
	// Architecture in Go's spelling, such as "arm64". Empty: the Pod may land on any.
	Architecture string
	// HasArgs says that the container has args: an image with neither ENTRYPOINT nor CMD runs these.
	HasArgs bool
}

// platform is where the Pod may land, in words.
func (r Request) platform() string {
	return strings.TrimSuffix("linux/"+r.Architecture, "/")
}

// RequestFor asks for the command of a container of a Pod.
func RequestFor(namespace string, pod *corev1.PodSpec, container *corev1.Container) Request {
	request := Request{
		Namespace:    namespace,
		Image:        container.Image,
		PullPolicy:   container.ImagePullPolicy,
		Architecture: pod.NodeSelector[corev1.LabelArchStable],
		HasArgs:      len(container.Args) > 0,
	}
	for _, secret := range pod.ImagePullSecrets {
		request.PullSecrets = append(request.PullSecrets, secret.Name)
	}
	return request
}
