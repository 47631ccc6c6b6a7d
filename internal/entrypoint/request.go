package entrypoint

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Request asks for the command of one container.
type Request struct {
	// Namespace of the Pod and of its PullSecrets.
	Namespace string
	// Image as the container names it.
	Image string
	// PullPolicy of the container. If empty, Kubernetes' default for the image's tag. With Always, the registry is asked each time.
	PullPolicy corev1.PullPolicy
	// PullSecrets are the names of the Pod's imagePullSecrets.
	PullSecrets []string
	// Architecture in Go's spelling, such as "arm64". If empty, the Pod may land on any.
	Architecture string
	// HasArgs is true if the container has args, which an image with neither ENTRYPOINT nor CMD runs as the command.
	HasArgs bool
}

// platform names where the Pod may land.
func (r Request) platform() string {
	return strings.TrimSuffix("linux/"+r.Architecture, "/")
}

// RequestFor returns the request for a container of a Pod.
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
