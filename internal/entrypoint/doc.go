// Package entrypoint resolves which command a container runs if its Pod sets none.
//
// The kubelet leaves that question to the container runtime, which reads the image's configuration on the node. The webhook must answer it
// earlier, because it puts the agent in front of the command. So this package reads the configuration from the registry, and must see what
// the node will see:
//
//   - which registry: mirrors first, then the registry itself (Options.Mirrors);
//   - with which credentials: the Pod's imagePullSecrets, matched and ordered as the kubelet does it (credentials.go);
//   - which platform: the Pod's nodeSelector decides; if several platforms with different commands remain, the agent picks (command.go);
//   - how the result fills the container's command and args: as containerd does it (Command.Fill).
//
// The author of a Pod chooses the registry, so nothing that it answers is trusted: the transport refuses addresses that are no registry's
// and bounds every answer (transport.go), caches are bounded and keyed by credentials (resolver.go), and an error never repeats a
// registry's words (reasons.go, logcause.go).
package entrypoint
